//! Which kernel is meant: of all packages with a kernel for virtual machines, the newest whose version begins as asked.

use std::cmp::Ordering;

/// What stands before the version in a package's name.
const BEFORE: &str = "linux-image-";
/// What stands after it. Kernels for clouds are a quarter of the size of the others, and boot without a disk.
const AFTER: &str = "-cloud-amd64";

/// A kernel that can be installed, in the order of age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The numbers in its version.
    numbers: Vec<u64>,
    /// As `uname -r` prints it, e.g. `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
}

/// The kernels in a list of packages, a line each, that begins with the package's name: oldest first.
pub(super) fn kernels(list: &str) -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = list
        .lines()
        .filter_map(|line| Kernel::of(line.split_whitespace().next()?))
        .collect();
    kernels.sort();
    kernels.dedup();
    kernels
}

/// The newest kernel whose version is `wanted` or begins with it: `6.1` is 6.1.0-56, but not 6.12.
pub(super) fn newest<'a>(kernels: &'a [Kernel], wanted: &str) -> Option<&'a Kernel> {
    kernels.iter().filter(|it| it.begins_with(wanted)).max()
}

// === impl Kernel ===

impl Kernel {
    /// The kernel in `package`; `None` for all other packages, and for those that only stand for the newest one.
    pub(super) fn of(package: &str) -> Option<Self> {
        let version = package.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
        let numbers = numbers(version);
        // `linux-image-6.12-cloud-amd64` and `linux-image-cloud-amd64` contain no kernel.
        (numbers.len() > 2).then(|| Self {
            numbers,
            release: format!("{version}{AFTER}"),
        })
    }

    /// The package it comes in.
    pub(super) fn package(&self) -> String {
        format!("{BEFORE}{}", self.release)
    }

    /// Whether this is Linux `major`.`minor` or newer.
    pub(super) fn at_least(&self, major: u64, minor: u64) -> bool {
        self.numbers.as_slice() >= [major, minor].as_slice()
    }

    fn begins_with(&self, wanted: &str) -> bool {
        let wanted = wanted.strip_prefix('v').unwrap_or(wanted);
        let rest = self.release.strip_prefix(wanted);
        !wanted.is_empty()
            && rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    }
}

impl Ord for Kernel {
    fn cmp(&self, other: &Self) -> Ordering {
        let Self { numbers, release } = self;
        numbers
            .cmp(&other.numbers)
            .then_with(|| release.cmp(&other.release))
    }
}

impl PartialOrd for Kernel {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)
linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-60-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud
linux-image-6.1.0-60-amd64 - Linux 6.1 for 64-bit PCs (signed)
linux-image-cloud-amd64 - Linux for x86-64 cloud (meta-package)
";

    fn chosen(wanted: &str) -> Option<String> {
        newest(&kernels(LIST), wanted).map(|kernel| kernel.release.clone())
    }

    #[test]
    fn the_newest_kernel_that_begins_as_asked_is_chosen() {
        assert_eq!(chosen("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(
            chosen("6.12").as_deref(),
            Some("6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(chosen("6").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(chosen("6.1.0-9").as_deref(), Some("6.1.0-9-cloud-amd64"));
        assert_eq!(chosen("v6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn a_version_that_is_not_packaged_chooses_nothing() {
        for wanted in ["", "v", "6.11", "6.1.0-5", "cloud", "7"] {
            assert_eq!(chosen(wanted), None, "{wanted}");
        }
    }

    #[test]
    fn a_package_that_contains_no_kernel_is_none() {
        assert_eq!(kernels(LIST).len(), 4);
        assert!(kernels("").is_empty());
        assert!(kernels("\n\nE: no\n").is_empty());
    }

    #[test]
    fn versions_compare_as_numbers() {
        let kernel = Kernel::of("linux-image-6.12.99+deb12-cloud-amd64");
        let kernel = kernel.as_ref();
        assert_eq!(kernel.map(|it| it.at_least(6, 6)), Some(true));
        assert_eq!(kernel.map(|it| it.at_least(6, 12)), Some(true));
        assert_eq!(kernel.map(|it| it.at_least(6, 13)), Some(false));
        assert_eq!(kernel.map(|it| it.at_least(7, 0)), Some(false));
    }
}
