# SPDX-License-Identifier: Apache-2.0
# For tests of the product whose cuda backend runs on the host.
load ../cli/common

emu() { # ARGUMENTS of replay: by the emulated card
    "$emulated" replay "$@" --backend cuda --repeat 1 -q
}

setup_file() {
    emulated=$(realpath "${RATTN_EMU:-$BATS_TEST_DIRNAME/../../build/emu/rattn-sim}")
    export emulated
}
