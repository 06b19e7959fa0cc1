# SPDX-License-Identifier: Apache-2.0
# What a system in need does to commands: full devices, limits of memory and file size, odd names.
load common

peak() { # COMMAND...: its peak resident memory in MiB, and its status
    python3 -c 'import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, env={"TMPDIR": "."}).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024 + 1)
sys.exit(status)' "$@"
}

@test "peak memory of deciding and measuring stays within what is promised" {
    [[ $rattn == *asan* ]] && skip "the sanitizer's own memory would be measured"
    P=32768 N=32
    trace=synth:case=drift,P=$P,N=$N,Hq=8,Hkv=8,D=64,layers=3
    layer=$(((P + N) * 8 * (64 + 64) * 2 >> 20)) # MiB of one layer's K and V as stored, f16
    used=$(peak "$rattn" replay $trace -p full -p recycled:k=256,stride=8 --backend null -j 1 -q)
    echo "layer $layer MiB, peak $used MiB"
    [ "$used" -le $((layer * 3 / 2 + 64)) ]
    used=$(peak "$rattn" replay "$sample" -p full -p recycled:k=256,stride=16 --backend null -j 1 -q)
    echo "sample: peak $used MiB"
    [ "$used" -le 66 ]
}

@test "a full device is a failure of every command that prints" {
    fill
    for words in "explain" "info $sample" "info $sample --format json" "list policies -v" \
        "list runs s.db" "report s.db" "report s.db --format json" "report s.db --format csv" \
        "compare s.db --run 1 --run 1" "doctor" "help" "--version" "replay -h" \
        "replay synth:case=integer,P=32,N=8 -p full -q --backend null --format csv"; do
        run -1 bash -c "\"$rattn\" $words 2>&1 >/dev/full"
        [[ $output == *"standard output: No space left on device"* ]]
    done
    run -1 "$rattn" report s.db -o /dev/full
    [[ $output == *"/dev/full: No space left on device"* ]]
}

@test "a file that may not grow leaves the older one, and no half one" {
    fill
    "$rattn" report s.db --format json -o r.json
    "$rattn" replay synth:case=integer,P=32,N=8 -p full -q --export e.safetensors >/dev/null
    cp r.json r.old
    cp e.safetensors e.old
    for kib in 1 4 8; do
        run -1 bash -c "ulimit -f $kib; \"$rattn\" report s.db --format json -o r.json"
        [[ $output == *"r.json: File too large"* ]]
        run -1 bash -c "ulimit -f $kib; \"$rattn\" replay synth:case=integer,P=48,N=8 -p full -q --export e.safetensors"
        [[ $output == *"File too large"* ]]
        cmp r.json r.old
        cmp e.safetensors e.old
        [ "$(find . -name '*.tmp-*' | wc -l)" -eq 0 ]
    done
}

@test "a figure that could not be written is not left half" {
    command -v gnuplot >/dev/null || skip "gnuplot-nox is missing"
    fill
    mkdir figures
    "$rattn" plot s.db -o figures --figure traffic
    cp -r figures whole
    for kib in 1 2 6 12; do
        run -1 bash -c "ulimit -f $kib; \"$rattn\" plot s.db -o figures --figure traffic"
        [[ $output == *"figures/traffic."* ]]
        diff -r figures whole
    done
}

@test "memory that is not there is a failure, at every limit" {
    [[ $rattn == *asan* ]] && skip "the sanitizer reserves more than any limit"
    run -0 "$rattn" replay "$sample" -p full --steps 0..1 --backend null -q
    for mib in 12 14 16 18 20 22 24 28 32; do
        run bash -c "ulimit -v $((mib * 1024)); \"$rattn\" replay \"$sample\" -p full --steps 0..1 --backend null -q -j 1"
        case $status in
        0) ;;
        1) [[ $output == *memory* ]] ;;
        127) [[ $output == *"shared librar"* ]] ;; # the loader's own need
        *) echo "$mib MiB: status $status: $output" && false ;;
        esac
    done
}

@test "a trace whose path is not UTF-8 is refused where results would name it" {
    odd=$'odd-\xff.safetensors'
    cp "$sample" "$odd"
    run -2 "$rattn" replay "$odd" -p full -q --db s.db
    [[ $output == *"trace 1: its path is not UTF-8"* ]]
    [ ! -e s.db ]
    run -2 "$rattn" replay "$sample" "$odd" -p full -q
    [[ $output == *"trace 2: its path is not UTF-8"* ]]
    run -0 "$rattn" info "$odd" --format json
    mkdir $'folder-\xff'
    cd $'folder-\xff'
    run -0 --separate-stderr "$rattn" replay synth:case=integer,P=32,N=8 -p full -q --db r.db --format json
    [ "$(sqlite3 r.db "SELECT json_valid(config_json) AND json_valid(result_json) FROM run")" = 1 ]
    run -0 --separate-stderr "$rattn" replay synth:case=integer,P=32,N=8 -p full -q --db $'r-\xff.db' --format json
}

@test "a control byte in a path does not reach the terminal" {
    cp "$sample" $'t\x1b[31m.safetensors'
    run -0 "$rattn" replay $'t\x1b[31m.safetensors' -p full --backend null -q --steps 0..0
    [[ $output != *$'\x1b'* ]]
    run -1 "$rattn" info $'absent\x1b[31m'
    [[ $output != *$'\x1b'* ]]
}

@test "an interrupt while results are printed loses none of them" {
    cat >interrupt.py <<'EOF'
import array, fcntl, json, signal, subprocess, sys, termios, time
words = [sys.argv[1], "replay"] + ["synth:case=integer,P=16,N=2"] * 40
words += ["-p", "full", "--backend", "null", "-q", "--format", "json"]
program = subprocess.Popen(words, stdout=subprocess.PIPE)
waiting = array.array("i", [0])
while waiting[0] < 65536:  # the pipe is full: the program is in the middle of a write
    fcntl.ioctl(program.stdout, termios.FIONREAD, waiting)
    time.sleep(0.01)
time.sleep(0.2)
program.send_signal(signal.SIGINT)
time.sleep(0.2)
text = program.stdout.read()
assert program.wait() in (0, 130), program.returncode
assert len(json.loads(text)) == 40
EOF
    run -0 timeout 60 python3 interrupt.py "$rattn"
}
