//! The CPU time that the control groups of this process may use, on Linux. Containers are limited this way: the machine
//! has sixty CPUs, the process may run on all of them, but only for as much time as two of them have.
//!
//! A limit may sit on the process's own group or on any group above it, in the unified hierarchy (version 2, `cpu.max`)
//! or in that of the CPU controller (version 1, `cpu.cfs_quota_us` and `cpu.cfs_period_us`). The least of them counts.
//! Everything here works on the text of files, which a function reads, so that it is tested on any machine.

use std::path::{Path, PathBuf};

/// The least CPU limit that applies to this process, in CPUs, rounded up; none where nothing limits it. `read` returns
/// the text of a file.
pub(super) fn cpu_limit(read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let membership = read(Path::new("/proc/self/cgroup"))?;
    let limit_of = |mount: Mount| {
        let group = mount.version.group(&membership)?;
        let directory = mount.directory(group);
        let groups = directory.ancestors().take_while(|directory| directory.starts_with(mount.point));
        groups.filter_map(|directory| mount.version.limit(directory, &read)).min()
    };
    mounts.lines().filter_map(Mount::parse).filter_map(limit_of).min()
}

/// The two forms of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// The hierarchy of the CPU controller.
    One,
    /// The unified hierarchy.
    Two,
}

impl Version {
    /// The path of this process's group, from a `/proc/self/cgroup` of lines `hierarchy:controllers:path`.
    fn group(self, membership: &str) -> Option<&Path> {
        membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let matches = match self {
                Version::One => controllers.split(',').any(|controller| controller == "cpu"),
                Version::Two => hierarchy == "0" && controllers.is_empty(),
            };
            matches.then(|| Path::new(path))
        })
    }

    /// The limit set on the group of a directory.
    fn limit(self, directory: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
        match self {
            Version::One => {
                let quota = read(&directory.join("cpu.cfs_quota_us"))?;
                let period = read(&directory.join("cpu.cfs_period_us"))?;
                cpus(&quota, &period)
            }
            Version::Two => {
                let text = read(&directory.join("cpu.max"))?;
                let mut fields = text.split_whitespace();
                // The kernel's period where the file gives none.
                cpus(fields.next()?, fields.next().unwrap_or("100000"))
            }
        }
    }
}

/// A quota of microseconds in every period, in CPUs, rounded up and at least one. "No limit" is the word `max` in
/// version 2 and -1 in version 1: not a positive number in either.
fn cpus(quota: &str, period: &str) -> Option<usize> {
    let positive = |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number > 0);
    Some(positive(quota)?.div_ceil(positive(period)?))
}

/// A place where a hierarchy of control groups, or a part of one, is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'text> {
    version: Version,
    /// The group that the mount point shows.
    root: &'text Path,
    point: &'text Path,
}

impl<'text> Mount<'text> {
    /// Reads a line of `/proc/self/mountinfo`: `id parent device root point options [tags] - type source options`.
    fn parse(line: &'text str) -> Option<Mount<'text>> {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (Path::new(place.next()?), Path::new(place.next()?));
        let mut system = system.split(' ');
        let version = match system.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if system.nth(1)?.split(',').any(|option| option == "cpu") => Version::One,
            _ => return None,
        };
        Some(Mount { version, root, point })
    }

    /// The directory of a group. A container may see its own group mounted under the path that the group has outside;
    /// the mount point is the nearest that can be seen of a group outside the mount.
    fn directory(&self, group: &Path) -> PathBuf {
        let inside = group.strip_prefix(self.root).ok();
        let visible = inside.filter(|path| path.components().all(|part| part != std::path::Component::ParentDir));
        visible.map_or_else(|| self.point.to_owned(), |path| self.point.join(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_TWO: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const VERSION_ONE: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
        38 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    /// The limit on a machine of these files.
    fn limit(mounts: &str, membership: &str, files: &[(&str, &str)]) -> Option<usize> {
        cpu_limit(|path| match path.to_str()? {
            "/proc/self/mountinfo" => Some(mounts.to_owned()),
            "/proc/self/cgroup" => Some(membership.to_owned()),
            path => files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()),
        })
    }

    #[test]
    fn quotas_round_up() {
        assert_eq!(cpus("150000", "100000"), Some(2));
        assert_eq!(cpus("200000\n", "100000\n"), Some(2));
        assert_eq!(cpus("1000", "100000"), Some(1));
        assert_eq!(cpus("max", "100000"), None);
        assert_eq!(cpus("-1\n", "100000\n"), None);
        assert_eq!(cpus("100000", "0"), None);
        assert_eq!(cpus("", ""), None);
    }

    #[test]
    fn version_two_takes_the_least_limit_up_to_the_root() {
        let files = [
            ("/sys/fs/cgroup/cpu.max", "900000 100000\n"),
            ("/sys/fs/cgroup/pod.slice/cpu.max", "250000 100000\n"),
            ("/sys/fs/cgroup/pod.slice/app:1/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/other/cpu.max", "100000 100000\n"),
        ];
        assert_eq!(limit(VERSION_TWO, "0::/pod.slice/app:1\n", &files), Some(3));
        assert_eq!(limit(VERSION_TWO, "0::/\n", &files), Some(9));
        assert_eq!(limit(VERSION_TWO, "0::/\n", &[("/sys/fs/cgroup/cpu.max", "max\n")]), None);
        assert_eq!(limit(VERSION_TWO, "0::/\n", &[("/sys/fs/cgroup/cpu.max", "150000\n")]), Some(2));
    }

    #[test]
    fn version_one_reads_the_hierarchy_of_the_cpu_controller() {
        let membership = "5:cpuset:/jobs\n4:cpu,cpuacct:/jobs/seven\n0::/jobs\n";
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/jobs/seven/cpu.cfs_quota_us", "120000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/jobs/seven/cpu.cfs_period_us", "50000\n"),
            ("/sys/fs/cgroup/cpuset/jobs/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpuset/jobs/cpu.cfs_period_us", "50000\n"),
        ];
        assert_eq!(limit(VERSION_ONE, membership, &files), Some(3));
        assert_eq!(limit(VERSION_ONE, "4:cpu,cpuacct:/\n", &files), None);
    }

    #[test]
    fn a_mount_of_a_part_is_entered_at_that_part() {
        let mounts = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let files = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "100000\n"),
            ("/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limit(mounts, "4:cpu:/docker/abc\n", &files), Some(3));
        assert_eq!(limit(mounts, "4:cpu:/docker/abc/inner\n", &files), Some(1));
        assert_eq!(limit(mounts, "4:cpu:/docker/abcd\n", &files), Some(3));
    }

    #[test]
    fn a_group_outside_the_mount_gives_what_the_mount_point_shows() {
        let files = [("/sys/fs/cgroup/cpu.max", "400000 100000\n"), ("/sys/fs/cgroup/../x/cpu.max", "100000 100000\n")];
        assert_eq!(limit(VERSION_TWO, "0::/../x\n", &files), Some(4));
    }

    #[test]
    fn missing_and_malformed_files_limit_nothing() {
        assert_eq!(limit("", "", &[]), None);
        assert_eq!(limit("no mount\n1 2 - \n1 2 3 / - cgroup2\n", "0::/\nx\n:\n", &[]), None);
        assert_eq!(limit(VERSION_TWO, "0::/a\n", &[("/sys/fs/cgroup/a/cpu.max", "\n")]), None);
        assert_eq!(cpu_limit(|_| None), None);
    }
}
