#!/bin/sh
# Become a systemd over this machine's files, of which it changes none.  Started by tests/deploy/own_systemd.py in
# namespaces of its own: PLACE SOURCE BASE SITE PYTHON, an empty folder, the checkout, the interpreter's prefix, the
# folder of libraries, and the interpreter inside BASE.
set -eu
place=$1 source=$2 base=$3 site=$4 python=$5
root=$place/root

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$place"
mkdir "$place/upper" "$place/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev" # not the machine's
for each in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$root/dev/${each%:*}" c 1 "${each#*:}"
done
mknod -m 666 "$root/dev/tty" c 5 0
mknod -m 666 "$root/dev/other" c 1 3 # one that no service needs
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/opt/python" "$root/opt/site" "$root/opt/source" "$root/opt/units" "$root/opt/pyjiva/bin"
mount --bind "$base" "$root/opt/python"
mount --bind "$site" "$root/opt/site"
mount --bind "$source" "$root/opt/source"
cd "$root"
mkdir old
pivot_root . old
cd /
umount -l /old
rmdir /old

# The programs, where the units look for them, and readable for every user.
ldconfig /opt/python/lib
for program in controller replica; do
    cat >"/opt/pyjiva/bin/pyjiva-$program" <<END
#!/opt/python/$python -I
import sys
sys.path[:0] = ["/opt/source/src", "/opt/site"]
from pyjiva.cli.$program import main
main()
END
    chmod 755 "/opt/pyjiva/bin/pyjiva-$program"
done

# Of the units of this machine those alone that every service stands on: nothing asks for those of its administrator.
cd /usr/lib/systemd/system
cp basic.target sysinit.target shutdown.target local-fs.target network-online.target systemd-journald.service \
    systemd-journald.socket systemd-journald-dev-log.socket /opt/units
printf '[Unit]\nRequires=basic.target\nWants=systemd-journald.service\n' >/opt/units/own.target
systemd-machine-id-setup 2>/dev/null
ip link set lo up
cd /
exec env -i container=own PATH=/usr/sbin:/usr/bin SYSTEMD_UNIT_PATH=/etc/systemd/system:/opt/units \
    /lib/systemd/systemd --system --unit=own.target --show-status=no --log-target=journal
