#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# make install and uninstall: what lands where below DESTDIR and PREFIX, that it works there without
# the source tree, and that nothing of it stays. A build that is there is installed, not rebuilt.

load common

setup_file() {
    export TREE
    TREE=$(realpath "$BATS_TEST_DIRNAME/../..")
}

# The makefile's rules on a folder that has what was built, so that nothing is compiled here.
install_to() { # TARGET WORD...
    make -s -C "$TREE" -o all "$@"
}

@test "binary, manual, completion, licence and papers, with Debian's modes; uninstall leaves nothing" {
    [ -x "$TREE/build/rattn-sim" ] || skip "needs build/rattn-sim"
    to="$PWD/a \$place of 'mine'"
    install_to install DESTDIR="${to//\$/\$\$}" PREFIX=/usr
    run -0 find "$to" -type f -printf '%m %P\n'
    # shellcheck disable=SC2012 # the library is there where nvcc was
    library=$(ls "$TREE/build/librattn_cuda.so" 2>/dev/null | sed 's/.*/644 usr\/lib\/rattn-sim\/librattn_cuda.so/')
    diff <(echo "$output" | sort) - <<-END
	${library:+$library
	}644 usr/share/bash-completion/completions/rattn-sim
	644 usr/share/doc/rattn-sim/FORMAT.md
	644 usr/share/doc/rattn-sim/README.md
	644 usr/share/doc/rattn-sim/copyright
	644 usr/share/man/man1/rattn-sim.1
	755 usr/bin/rattn-sim
	END
    "$to/usr/bin/rattn-sim" help --man | cmp - "$to/usr/share/man/man1/rattn-sim.1"
    "$to/usr/bin/rattn-sim" help --completion | cmp - "$to/usr/share/bash-completion/completions/rattn-sim"
    touch "$to/usr/share/doc/other"
    install_to uninstall DESTDIR="${to//\$/\$\$}" PREFIX=/usr
    [ "$(find "$to" ! -type d)" = "$to/usr/share/doc/other" ]
    [ -z "$(find "$to" -name '*rattn*')" ]
    install_to uninstall DESTDIR="${to//\$/\$\$}" PREFIX=/usr # twice is no error
}

@test "what is installed works elsewhere: a recording, a store, figures, completion" {
    [ -x "$TREE/build/rattn-sim" ] || skip "needs build/rattn-sim"
    install_to install PREFIX="$PWD/my prefix"
    cp "$sample" "my trace.safetensors"
    export PATH="$PWD/my prefix/bin:$PATH"
    mkdir away && cd away
    # only the installed program: none of the tree's files is opened
    command -v strace >/dev/null && trace="strace -f -qq -e trace=file -o ../opened" || trace=
    $trace rattn-sim replay "../my trace.safetensors" --layers 9 --steps 0..7 -p full \
        -p recycled:k=64,stride=4 --repeat 1 -q --db s.db >out
    grep -q "recycled:k=64,stride=4" out
    if command -v gnuplot >/dev/null; then
        rattn-sim plot s.db -o "the figures"
        for figure in $(rattn-sim list figures --format json | json '" ".join(f["name"] for f in d)'); do
            case $figure in
            waterfall | compare) ;; # they need a card's counters, and more schedules
            delta | drift) ;;       # and these a model that decodes
            *) grep -q "</svg>" "the figures/$figure.svg" ;;
            esac
        done
    fi
    [ ! -e ../opened ] || ! grep -F "$TREE/" ../opened
    bash --norc -c '. "../my prefix/share/bash-completion/completions/rattn-sim" && complete -p rattn-sim'
}
