/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the double share. */
#ifndef RA_TESTS_FAKE_CUPTI_INTERNAL_H
#define RA_TESTS_FAKE_CUPTI_INTERNAL_H

#include <cupti.h>
#include <cupti_profiler_host.h>
#include <cupti_profiler_target.h>
#include <cupti_range_profiler.h>
#include <cupti_target.h>

#include <mutex>
#include <string>

#include "tests/fake_cupti/fake.h"

extern std::recursive_mutex fake_lock;

/* Value of `name` in RA_FAKE_CUPTI; "" where it is not there. */
std::string fake_setting(const char *name);
long fake_number(const char *name, long otherwise);
/* What the call is told to return; CUPTI_SUCCESS where nothing is. */
CUptiResult fake_told(const char *call);
/* Something that CUPTI forbids: said, and the process ends. */
[[noreturn]] void fake_fault(const char *what);

#define FAKE_ENTER()                                                                               \
    std::lock_guard<std::recursive_mutex> guard(fake_lock);                                        \
    if (CUptiResult told_ = fake_told(__func__))                                                   \
    return told_

/* A kernel in the range at hand, if there is one. */
void fake_range_kernel(const struct fake_kernel *kernel);

#endif
