/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake_cupti/internal.h"

#include <stdio.h>
#include <stdlib.h>

std::recursive_mutex fake_lock;

std::string fake_setting(const char *name)
{
    const char *text = getenv("RA_FAKE_CUPTI");
    std::string all = text ? text : "", key = std::string(name) + "=";
    for (size_t at = 0; at < all.size();) {
        size_t end = all.find(',', at);
        std::string one = all.substr(at, end == std::string::npos ? end : end - at);
        if (one.compare(0, key.size(), key) == 0)
            return one.substr(key.size());
        at = end == std::string::npos ? all.size() : end + 1;
    }
    return "";
}

long fake_number(const char *name, long otherwise)
{
    std::string value = fake_setting(name);
    return value.empty() ? otherwise : atol(value.c_str());
}

CUptiResult fake_told(const char *call)
{
    return (CUptiResult)fake_number(call, 0);
}

void fake_fault(const char *what)
{
    fprintf(stderr, "fake CUPTI: %s\n", what);
    abort();
}
