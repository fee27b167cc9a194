from hypothesis import given, strategies as st
import numpy as np
from loadgen.wire.http import Framing, request_bytes, request_head

CH = st.lists(st.one_of(st.binary(min_size=1,max_size=30), st.sampled_from([b'data: {"a":1}\n\n', b'data: 10\r\n\r\n', b'0\r\n\r\n', b'x0\r\n\r\n', b'\r\n'])), max_size=8)

@given(CH, st.lists(st.integers(0, 600)), st.booleans(), st.booleans())
def test_any_split(chunks, cuts, ext, trailer):
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"".join(b"%x%b\r\n%b\r\n" % (len(c), b";a=b" if ext else b"", c) for c in chunks)
    raw += b"0\r\n" + (b"X: y\r\n" if trailer else b"") + b"\r\n"
    cuts = sorted({c for c in cuts if 0 < c < len(raw)})
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)])]
    f = Framing()
    done = [f.feed(p) for p in parts]
    assert done[-1] and not any(done[:-1])
    r = f.response()
    assert r.body == b"".join(chunks)
    assert f.keep_alive
    assert r.read_ends[-1] == len(r.body)
    # oracle for read_ends: bytes of body by position
    pos = []; at = raw.index(b"\r\n\r\n") + 4
    for c in chunks:
        at += len(b"%x%b\r\n" % (len(c), b";a=b" if ext else b""))
        pos += list(range(at, at+len(c))); at += len(c) + 2
    ends = np.cumsum([len(p) for p in parts])
    assert list(r.read_ends) == [sum(p < e for p in pos) for e in ends]
