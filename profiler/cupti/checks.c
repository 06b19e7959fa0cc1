/* SPDX-License-Identifier: Apache-2.0 */
/* Each check of the gate, and a sentence for each way in which it may fail. */
#include "profiler/cupti/checks.h"

#include <stdio.h>

#ifdef RA_CUPTI
#include <stdlib.h>
#include <string.h>

#include "profiler/cupti/chips.h"
#include "profiler/cupti/driver.h"

static bool bad(struct ra_gate_finding *finding, const char *found, const char *fix)
{
    finding->status = RA_ENODEV;
    snprintf(finding->found, sizeof finding->found, "%s", found);
    snprintf(finding->fix, sizeof finding->fix, "%s", fix);
    return false;
}

static bool good(struct ra_gate_finding *finding)
{
    finding->status = RA_OK;
    return true;
}

/* A message of the loaders starts with the backend's name, as that of any refused backend. */
static bool not_loaded(struct ra_gate_finding *finding, const struct ra_error *why, const char *fix)
{
    const char *text = strncmp(why->msg, "cuda: ", 6) == 0 ? why->msg + 6 : why->msg;
    return bad(finding, text, fix);
}

/* --- the driver ------------------------------------------------------------------------------- */

static bool check_driver(struct ra_gate_finding *finding)
{
    const struct ra_driver *driver;
    struct ra_error why;
    if (ra_driver_load(&driver, &why) != RA_OK)
        return not_loaded(finding, &why, "install the driver of your GPU, or use --backend cpu");
    snprintf(finding->found, sizeof finding->found, "found");
    return good(finding);
}

static bool check_init(struct ra_gate_finding *finding)
{
    const struct ra_driver *driver;
    char text[RA_DRIVER_RESULT_MAX], found[160];
    int version = 0;
    if (ra_driver_load(&driver, NULL) != RA_OK)
        return bad(finding, "libcuda.so.1 went away", "");
    CUresult result = driver->cuInit(0);
    switch ((int)result) {
    case CUDA_SUCCESS:
        (void)driver->cuDriverGetVersion(&version);
        snprintf(finding->found, sizeof finding->found, "for CUDA %d.%d", version / 1000,
                 version % 1000 / 10);
        return good(finding);
    case 34: /* CUDA_ERROR_STUB_LIBRARY */
        return bad(finding, "libcuda.so.1 is the toolkit's stub, expected the driver's",
                   "take the toolkit's stubs folder out of LD_LIBRARY_PATH");
    case 100: /* CUDA_ERROR_NO_DEVICE */
        return bad(finding, "no GPU found, one NVIDIA device is needed",
                   "see that the card is there (nvidia-smi) and CUDA_VISIBLE_DEVICES allows it");
    case 803: /* CUDA_ERROR_SYSTEM_DRIVER_MISMATCH */
    case 804: /* CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE */
        return bad(finding, "the NVIDIA driver and its libraries are of different versions",
                   "restart the machine or install them anew");
    default:
        snprintf(found, sizeof found, "the driver does not start: %s",
                 ra_driver_result(driver, result, text));
        return bad(finding, found, "see what nvidia-smi says");
    }
}

static bool check_device(struct ra_gate_finding *finding, char uuid[48])
{
    const struct ra_driver *driver;
    char name[160] = "", text[RA_DRIVER_RESULT_MAX], found[160];
    CUdevice device = 0;
    CUuuid id = {{0}};
    int n = 0;
    if (ra_driver_load(&driver, NULL) != RA_OK)
        return bad(finding, "libcuda.so.1 went away", "");
    CUresult result = driver->cuDeviceGetCount(&n);
    if (result != CUDA_SUCCESS || n < 1) {
        snprintf(found, sizeof found, "no NVIDIA device: %s",
                 result == CUDA_SUCCESS ? "the driver counts none"
                                        : ra_driver_result(driver, result, text));
        return bad(finding, found, "see that the card is there: nvidia-smi");
    }
    if (driver->cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        driver->cuDeviceGetName(name, (int)sizeof name, device) != CUDA_SUCCESS ||
        driver->cuDeviceGetUuid(&id, device) != CUDA_SUCCESS)
        return bad(finding, "device 0 does not say what it is", "see what nvidia-smi says");
    ra_driver_spell_uuid(&id, uuid);
    snprintf(finding->found, sizeof finding->found, "%d: %s", n, name);
    return good(finding);
}

/* --- CUPTI ------------------------------------------------------------------------------------ */

static const char permission_fix[] =
    "timing still works (--profile timing); to count, be root or have CAP_SYS_ADMIN (CAP_PERFMON "
    "from driver R565), in a container --cap-add=SYS_ADMIN, or set 'options nvidia "
    "NVreg_RestrictProfilingToAdminUsers=0' in /etc/modprobe.d, rebuild the initramfs and reboot: "
    "https://developer.nvidia.com/CUPTI_ERROR_INSUFFICIENT_PRIVILEGES";

/* What the numbers mean to a user; the rest is told by name. */
static bool refused(const struct ra_cupti *cupti, CUptiResult result, const char *during,
                    struct ra_gate_finding *finding)
{
    static const struct {
        int result;
        const char *found, *fix;
    } known[] = {
        {27, "CUPTI does not count on this device", "use --profile timing"},
        {41, "counters are off under confidential computing", "use --profile timing"},
        {42, "a mining card (CMP) has no counters", "use --profile timing"},
        {43, "counters are not to be had of a MIG slice",
         "use the whole card, or --profile timing"},
        {44, "counters are off under SLI", "switch SLI off, or use --profile timing"},
        {45, "counters are off in this WSL", "use --profile timing"},
        {46, "CUPTI is older than the chip",
         "install a newer CUDA toolkit, or use --profile timing"},
    };
    char text[RA_CUPTI_RESULT_MAX], found[200];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].result == (int)result) {
            snprintf(found, sizeof found, "%s (CUPTI error %d)", known[i].found, (int)result);
            return bad(finding, found, known[i].fix);
        }
    if (result == CUPTI_ERROR_INSUFFICIENT_PRIVILEGES ||
        result == CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES) {
        snprintf(found, sizeof found,
                 "GPU performance counters are restricted on this %s (CUPTI error %d)",
                 result == CUPTI_ERROR_INSUFFICIENT_PRIVILEGES ? "machine" : "virtual GPU",
                 (int)result);
        bad(finding, found, permission_fix);
        finding->status = RA_EPERM;
        return false;
    }
    snprintf(found, sizeof found, "%s: %s", during, ra_cupti_result(cupti, result, text));
    return bad(finding, found, "use --profile timing or off");
}

static void CUPTIAPI hear_nothing(void *context, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                                  const void *data)
{
    (void)context;
    (void)domain;
    (void)id;
    (void)data;
}

/* One tool at a time. */
static bool check_alone(const struct ra_cupti *cupti, struct ra_gate_finding *finding)
{
    CUpti_SubscriberHandle subscriber = NULL;
    char other[CUPTI_OLD_SUBSCRIBER_NAME_MIN_LEN + 1] = "", found[200];
    CUpti_SubscriberParams params = {.structSize = CUpti_SubscriberParams_STRUCT_SIZE,
                                     .subscriberName = "rattn-sim",
                                     .oldSubscriberName = other,
                                     .oldSubscriberSize = sizeof other};
    CUptiResult result = cupti->cuptiSubscribe_v2(&subscriber, hear_nothing, NULL, &params);
    if (result == CUPTI_SUCCESS)
        return cupti->cuptiUnsubscribe(subscriber) == CUPTI_SUCCESS ||
               refused(cupti, result, "cuptiUnsubscribe", finding);
    if (result != CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED)
        return refused(cupti, result, "cuptiSubscribe", finding);
    snprintf(found, sizeof found, "another CUPTI tool (%s) is attached (CUPTI error 39)",
             other[0] ? other : "of no name");
    return bad(finding, found, "run without nsys or ncu, or with --profile off");
}

static bool check_cupti(struct ra_gate_finding *finding)
{
    const struct ra_cupti *cupti;
    struct ra_error why;
    if (ra_cupti_load(&cupti, &why) != RA_OK)
        return not_loaded(finding, &why,
                          "install CUPTI of CUDA 13, or set LD_LIBRARY_PATH to its folder");
    if (!check_alone(cupti, finding))
        return false;
    snprintf(finding->found, sizeof finding->found, "API %u at %.400s%s", (unsigned)cupti->version,
             cupti->path,
             cupti->version / 10000 != CUPTI_API_VERSION / 10000 ? ", of another release than this "
                                                                   "program was built for"
                                                                 : "");
    return good(finding);
}

static bool check_host(struct ra_gate_finding *finding)
{
    const struct ra_cupti *cupti;
    const char *const *names;
    size_t n;
    if (ra_cupti_load(&cupti, NULL) != RA_OK)
        return bad(finding, "libcupti.so.13 went away", "");
    CUptiResult result = ra_cupti_chips(cupti, &names, &n);
    if (result == CUPTI_ERROR_NOT_INITIALIZED)
        return bad(finding, "libnvperf_host.so not found beside libcupti",
                   "install it from the same CUDA release");
    if (result != CUPTI_SUCCESS)
        return refused(cupti, result, "list of chips", finding);
    snprintf(finding->found, sizeof finding->found, "metrics of %zu chips", n);
    return good(finding);
}

static bool check_profiler(struct ra_gate_finding *finding)
{
    const struct ra_cupti *cupti;
    CUpti_Profiler_Initialize_Params params = {.structSize =
                                                   CUpti_Profiler_Initialize_Params_STRUCT_SIZE};
    if (ra_cupti_load(&cupti, NULL) != RA_OK)
        return bad(finding, "libcupti.so.13 went away", "");
    CUptiResult result = cupti->cuptiProfilerInitialize(&params);
    if (result != CUPTI_SUCCESS)
        return refused(cupti, result, "cuptiProfilerInitialize", finding);
    snprintf(finding->found, sizeof finding->found, "starts");
    return good(finding);
}

static bool check_supported(struct ra_gate_finding *finding)
{
    const struct ra_cupti *cupti;
    CUpti_Profiler_DeviceSupported_Params params = {
        .structSize = CUpti_Profiler_DeviceSupported_Params_STRUCT_SIZE,
        .api = CUPTI_PROFILER_RANGE_PROFILING};
    char found[200];
    if (ra_cupti_load(&cupti, NULL) != RA_OK)
        return bad(finding, "libcupti.so.13 went away", "");
    CUptiResult result = cupti->cuptiProfilerDeviceSupported(&params);
    if (result != CUPTI_SUCCESS)
        return refused(cupti, result, "cuptiProfilerDeviceSupported", finding);
    if (params.isSupported == CUPTI_PROFILER_CONFIGURATION_SUPPORTED) {
        snprintf(finding->found, sizeof finding->found, "supported");
        return good(finding);
    }
    const struct {
        CUpti_Profiler_Support_Level level;
        const char *what;
    } reasons[] = {{params.architecture, "its architecture (7.5 or newer is needed)"},
                   {params.sli, "SLI"},
                   {params.vGpu, "the virtual GPU"},
                   {params.confidentialCompute, "confidential computing"},
                   {params.cmp, "being a mining card"},
                   {params.wsl, "WSL"}};
    const char *what = "reasons that CUPTI does not tell";
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].level != CUPTI_PROFILER_CONFIGURATION_SUPPORTED) {
            what = reasons[i].what;
            break;
        }
    snprintf(found, sizeof found, "this device does not count, because of %s", what);
    return bad(finding, found, "use --profile timing");
}

static bool check_chip(struct ra_gate_finding *finding, char chip[32])
{
    const struct ra_cupti *cupti;
    const char *const *names;
    size_t n;
    CUpti_Device_GetChipName_Params params = {.structSize =
                                                  CUpti_Device_GetChipName_Params_STRUCT_SIZE};
    char found[200];
    if (ra_cupti_load(&cupti, NULL) != RA_OK)
        return bad(finding, "libcupti.so.13 went away", "");
    CUptiResult result = cupti->cuptiDeviceGetChipName(&params);
    if (result != CUPTI_SUCCESS)
        return refused(cupti, result, "cuptiDeviceGetChipName", finding);
    const char *name = params.pChipName ? params.pChipName : "";
    result = ra_cupti_chips(cupti, &names, &n);
    if (result != CUPTI_SUCCESS)
        return refused(cupti, result, "list of chips", finding);
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) {
            snprintf(chip, 32, "%s", name);
            snprintf(finding->found, sizeof finding->found, "%s", name);
            return good(finding);
        }
    snprintf(found, sizeof found, "this CUPTI has no metrics of chip '%s'", name);
    return bad(finding, found, "install a newer CUDA toolkit, or use --profile timing");
}

/* Enabling may succeed where counting will not; asking what can be counted does not. */
static bool check_permission(struct ra_gate_finding *finding)
{
    const struct ra_cupti *cupti;
    const struct ra_driver *driver;
    CUcontext context = NULL;
    CUdevice device = 0;
    if (ra_cupti_load(&cupti, NULL) != RA_OK || ra_driver_load(&driver, NULL) != RA_OK)
        return bad(finding, "libcupti.so.13 went away", "");
    if (driver->cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        driver->cuDevicePrimaryCtxRetain(&context, device) != CUDA_SUCCESS)
        return bad(finding, "no context on device 0", "see what nvidia-smi says");
    CUpti_Profiler_GetCounterAvailability_Params params = {
        .structSize = CUpti_Profiler_GetCounterAvailability_Params_STRUCT_SIZE, .ctx = context};
    CUptiResult result = cupti->cuptiProfilerGetCounterAvailability(&params);
    (void)driver->cuDevicePrimaryCtxRelease(device);
    if (result != CUPTI_SUCCESS)
        return refused(cupti, result, "cuptiProfilerGetCounterAvailability", finding);
    snprintf(finding->found, sizeof finding->found, "permitted");
    return good(finding);
}

bool ra_gate_check_one(enum ra_gate_check check, struct ra_gate_finding *finding, char chip[32],
                       char uuid[48])
{
    switch (check) {
    case RA_GATE_DRIVER:
        return check_driver(finding);
    case RA_GATE_INIT:
        return check_init(finding);
    case RA_GATE_DEVICE:
        return check_device(finding, uuid);
    case RA_GATE_CUPTI:
        return check_cupti(finding);
    case RA_GATE_HOST:
        return check_host(finding);
    case RA_GATE_PROFILER:
        return check_profiler(finding);
    case RA_GATE_SUPPORTED:
        return check_supported(finding);
    case RA_GATE_CHIP:
        return check_chip(finding, chip);
    default:
        return check_permission(finding);
    }
}
#else
bool ra_gate_check_one(enum ra_gate_check check, struct ra_gate_finding *finding, char chip[32],
                       char uuid[48])
{
    (void)check;
    (void)chip;
    (void)uuid;
    finding->status = RA_ENODEV;
    snprintf(finding->found, sizeof finding->found, "built without the headers of CUPTI");
    snprintf(finding->fix, sizeof finding->fix, "install CUDA 13 and build again");
    return false;
}
#endif
