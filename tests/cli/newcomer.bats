#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a machine that lacks something says: one sentence that helps, from bootstrap and make, before
# anything is compiled. Nothing is installed or built here: what would do it is a stub.

load common

# A copy of the tree as far as make needs it, and pkg-config that knows the packages named.
tree_with() { # PACKAGE...
    mkdir -p pc
    for part in Makefile bootstrap sim kernels profiler traces plots docs tests; do ln -sf "$root/$part" .; done
    for package; do cp "$(pkg-config --variable=pcfiledir "$package")/$package.pc" pc/; done
    export PKG_CONFIG_LIBDIR=$PWD/pc
    unset MAKEFLAGS MAKELEVEL MFLAGS BUILD
}

@test "make without a library names what is needed, and compiles nothing" {
    tree_with sqlite3 nettle
    run -2 --separate-stderr make
    [ "$output" = "needed are sqlite3, jansson and nettle: run ./bootstrap (make config shows more)" ]
    [[ $stderr != *pkg-config* ]]
    run -0 make config
    [[ $output == *"MISSING: libsqlite3-dev libjansson-dev nettle-dev"* ]]
}

@test "make test without cmocka says so at once, and make config too" {
    tree_with sqlite3 jansson nettle
    for target in test test-unit; do
        run -2 --separate-stderr make -j2 $target
        [ "$output" = "the C tests need cmocka: run ./bootstrap, or install libcmocka-dev" ]
    done
    [ ! -e build/release/rattn-sim ]
    run -0 make config
    [[ $output == *"missing: libcmocka-dev"* ]]
}

@test "make help and make config fit 80 columns and name every target once" {
    run -0 make -s -C "$root" help config
    [ -z "$(echo "$output" | grep -v '^make' | awk 'length > 80')" ]
    [ -z "$(make -s -C "$root" help | grep -v '^make' | awk '{ print $1 }' | sort | uniq -d)" ]
}

# bootstrap sees only these programs; `id -u` says $1.
stubs() { # UID PROGRAM...
    mkdir -p bin
    ln -sf "$(command -v dirname)" bin/
    printf '#!/bin/sh\necho %s\n' "$1" >bin/id
    # all but bats are installed
    printf '#!/bin/sh\ncase $* in *bats) exit 1;; esac\necho "install ok installed"\n' >bin/dpkg-query
    shift
    for program; do printf '#!/bin/sh\necho "%s $*" >>"%s/log"\n' "$program" "$PWD" >"bin/$program"; done
    [[ " $* " != *" sudo "* ]] || printf '#!/bin/sh\necho "sudo $*" >>"%s/log"\n"$@"\n' "$PWD" >bin/sudo
    ln -sf "$(command -v env)" bin/
    chmod +x bin/*
}

@test "bootstrap without root or sudo says what to install, and stops" {
    tree_with
    stubs 1000 make
    run -1 --separate-stderr env PATH="$PWD/bin" ./bootstrap demo
    [ "${stderr_lines[0]}" = "bootstrap: neither root nor sudo here; as root, run" ]
    [ "${stderr_lines[1]}" = "  apt-get install bats" ]
    [ ${#stderr_lines[@]} -eq 2 ]
    [ ! -e log ]
}

@test "bootstrap installs only what is missing, with sudo where needed, then makes" {
    tree_with
    stubs 1000 make apt-get sudo
    run -0 --separate-stderr env PATH="$PWD/bin" ./bootstrap demo
    [ "$stderr" = "bootstrap: installing bats" ]
    grep -qx "sudo apt-get -qq update" log
    grep -qx "apt-get -qq install -y --no-install-recommends bats" log
    [ "$(tail -n 1 log)" = "make demo" ]
    stubs 0 make apt-get
    rm bin/sudo log
    run -0 env PATH="$PWD/bin" ./bootstrap test
    [ "$(tail -n 1 log)" = "make test" ]
    ! grep -q sudo log
}

@test "elsewhere bootstrap lists the packages and goes on" {
    tree_with
    stubs 1000 make
    rm bin/dpkg-query
    run -0 --separate-stderr env PATH="$PWD/bin" ./bootstrap demo
    [[ $stderr == "bootstrap: not a Debian system; "*libcmocka-dev*bats* ]]
    [ "$(cat log)" = "make demo" ]
}

@test "the suite without bats says so" {
    mkdir none
    for program in bash mktemp rm dirname; do ln -s "$(command -v $program)" none/; done
    cd "$root" || return 1
    B=build/none PATH=$BATS_TEST_TMPDIR/none run -1 bash tests/run.sh cli
    [ "${lines[0]}" = "the command line tests need bats: run ./bootstrap" ]
    [ "${lines[1]}" = "0 passed, 1 failed, 0 skipped" ]
}
