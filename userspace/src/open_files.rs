//! How many files, and so connections, this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// As many as the host allows: the usual soft limit of 1,024 is for programs that call select(2), which none here does.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        raise();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(
            (after.current, after.maximum),
            (before.maximum, before.maximum)
        );
    }
}
