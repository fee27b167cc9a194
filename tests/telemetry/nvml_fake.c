/* A libnvidia-ml.so.1 with as many boards as NVML_FAKE_GPUS says (1), for the functions that telemetry calls.
   Board i draws 200 + 100 i W (board 0: 200), and its energy counter has counted that since the library was loaded, in steps of 100 ms
   as the real one does. NVML_FAKE_OLD: no instant power, no energy counter, the older names of two functions.
   NVML_FAKE_LOST_AFTER: that many reads of the utilisation succeed, then the board is gone. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };

static double born_s;
static int reads;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int old(void) { return getenv("NVML_FAKE_OLD") != NULL; }
static int number(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
static unsigned watts(void *board) { return 100 + 100 * (unsigned)(uintptr_t)board; }

__attribute__((constructor)) static void load(void) { born_s = now_s(); }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return OK; }
int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "an error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "580.00"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("NVML_FAKE_GPUS", 1); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **board) { *board = (void *)(uintptr_t)(index + 1); return OK; }
int nvmlDeviceGetName(void *board, char *text, unsigned size) {
    snprintf(text, size, "Fake %u", (unsigned)(uintptr_t)board);
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *board, unsigned rates[2]) {
    int last = number("NVML_FAKE_LOST_AFTER", 0);
    if (last && ++reads > last) return GPU_IS_LOST;
    (void)board;
    rates[0] = 75;
    rates[1] = 40;
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *board, unsigned long long memory[3]) {
    (void)board;
    memory[0] = 16ULL << 30;
    memory[1] = 4ULL << 30;
    memory[2] = 12ULL << 30;
    return OK;
}

typedef struct {
    uint32_t fieldId, scopeId;
    int64_t timestamp, latencyUsec;
    uint32_t valueType, nvmlReturn;
    union { double d; unsigned u; unsigned long long ull; } value;
} Field;

int nvmlDeviceGetFieldValues(void *board, int n, Field *fields) {
    for (int i = 0; i < n; i++) {
        fields[i].nvmlReturn = fields[i].fieldId == 186 && !old() ? OK : NOT_SUPPORTED;
        fields[i].valueType = 1;
        fields[i].value.u = watts(board) * 1000;
    }
    return OK;
}
int nvmlDeviceGetPowerUsage(void *board, unsigned *milliwatts) {
    *milliwatts = watts(board) * 1000 + 1000; /* differs, so that a test sees which of the two was read */
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(void *board, unsigned long long *millijoules) {
    if (old()) return NOT_SUPPORTED;
    long long steps = (long long)((now_s() - born_s) * 10);
    *millijoules = (unsigned long long)steps * watts(board) * 100;
    return OK;
}
int nvmlDeviceGetClockInfo(void *board, unsigned type, unsigned *mhz) {
    (void)board;
    *mhz = type == 1 ? 1980 : 9501;
    return OK;
}
#ifdef OLD_NAMES
int nvmlDeviceGetCurrentClocksThrottleReasons(void *board, unsigned long long *reasons) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *board, unsigned long long *reasons) {
#endif
    (void)board;
    *reasons = 0x4 | 0x40;
    return OK;
}
#ifdef OLD_NAMES
int nvmlDeviceGetTemperature(void *board, unsigned sensor, unsigned *celsius) {
    (void)board, (void)sensor;
    *celsius = 61;
    return OK;
}
#else
int nvmlDeviceGetTemperatureV(void *board, int temperature[3]) {
    (void)board;
    temperature[2] = 62;
    return OK;
}
#endif

typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;

int nvmlDeviceGetComputeRunningProcesses_v3(void *board, unsigned *count, Process *processes) {
    (void)board;
    unsigned room = *count;
    *count = 1;
    if (!processes || room < 1) return INSUFFICIENT_SIZE;
    processes[0] = (Process){.pid = 1, .used = 3ULL << 30};
    return OK;
}
