#!/usr/bin/env bash
# The wall around the network's mind: overlay and ipam know no runtime, no libp2p, no boringtun, no system calls, no
# clock, no randomness of their own. This looks at what they depend on, and at their text.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Crates that would bring the world in, on the platform that this runs on.
worldly=(tokio futures async-std libp2p libp2p-core boringtun libc nix rustix mio socket2 getrandom tun-rs frejus)

# Words that would. Comments may say them.
words='Instant::now|SystemTime::now|\.elapsed\(\)|OsRng|SysRng|rand::rng\b|thread_rng|getrandom|RandomState'
words+='|std::net::\{?(Udp|Tcp)|\bUdpSocket\b|\bTcp(Stream|Listener)\b|std::(fs|thread|env|process)\b|\bunsafe\b'

broken=0

# tree CRATE: the names of everything that it is built from or with.
tree() { cargo tree --locked -p "$1" -e normal,build --prefix none --format '{p}' | cut -d' ' -f1 | sort -u; }

for crate in frejus-ipam frejus-overlay frejus-sim; do
    names=$(tree "$crate")
    for name in "${worldly[@]}"; do
        if grep -qx "$name" <<<"$names"; then
            echo "$crate depends on $name: cargo tree -p $crate -i $name"
            broken=1
        fi
    done
done
if tree frejus-ipam | grep -qx frejus-overlay; then
    echo "frejus-ipam depends on frejus-overlay: the arrow goes the other way"
    broken=1
fi

for directory in ipam/src overlay/src; do
    if ! grep -q 'forbid(unsafe_code)' "$directory/lib.rs"; then
        echo "$directory/lib.rs: #![forbid(unsafe_code)] is missing"
        broken=1
    fi
    if grep -rnE --include='*.rs' "$words" "$directory" | grep -vE '^[^:]+:[0-9]+:\s*//'; then
        echo "$directory: the lines above touch the world: time and seeds are arguments"
        broken=1
    fi
done

[[ $broken -eq 0 ]] && echo "the wall stands: ipam, overlay and the simulator touch nothing of the world"
exit "$broken"
