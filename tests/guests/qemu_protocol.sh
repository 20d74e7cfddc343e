#!/bin/bash
# qemu_protocol.sh IMAGE: drives every command of the line protocol and compares the guest's proof of
# its memory with the hash computed here.
set -u
image=$1
here=$(dirname "$0")
seed=0x7f4a7c159e3779b9

if ! command -v python3 > /dev/null; then
    echo "skipped: python3 is not installed"
    exit 77
fi

coproc guest { "$here/qemu_microvm.sh" "$image" wait=1; }
guest_pid=$!
exec {from_guest}<&"${guest[0]}" {to_guest}>&"${guest[1]}"

# Bytes sent before the guest has set up its serial port are lost: wait for `ready`.
output=""
while read -r -u "$from_guest" line; do
    output+=$line$'\n'
    [[ $line == *" ready "* ]] && printf '%s\n' proof "mark $seed" proof status check nonsense finish >&"$to_guest"
done
wait "$guest_pid"
status=$?
printf '%s' "$output"
[ $status -eq 0 ] || exit $status

hash=$(python3 "$here/proof.py" $seed)
for wanted in "error reason=not_marked" "marked seed=$seed" \
    "proof seed=$seed pages=64 hash=$hash ok=1" "status gap_us=" "check ok=1" \
    "error reason=unknown_command command=nonsense" "PASS"; do
    if ! grep -q -F -- " $wanted" <<< "$output"; then
        echo "missing: $wanted"
        exit 1
    fi
done
