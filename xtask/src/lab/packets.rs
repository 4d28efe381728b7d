//! What the tests of the data path make for themselves: two namespaces and a directory of pins, all of one name.
//!
//! A test that is killed, by Ctrl-C or by the runner, cannot take them away. Their name says whose they are:
//! `ekdPIDtSTARTxN`, see `userspace/tests/datapath/lab.rs`.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::{
    cleanup::{say, start_time, take_away},
    namespace::NAMES,
};

/// Where they pin.
const PINS: &str = "/sys/fs/bpf";

/// Names of those whose process is gone.
pub(super) fn abandoned() -> BTreeSet<String> {
    let entries = [NAMES, PINS].into_iter().flat_map(fs::read_dir).flatten();
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // A namespace has a role behind the name.
            let id = name.split('-').next()?;
            let (pid, started) = owner(id)?;
            (start_time(pid).as_deref() != Some(started)).then(|| id.to_owned())
        })
        .collect()
}

/// Process id and start time of whoever made `id`; `None` if the name is of another kind.
fn owner(id: &str) -> Option<(u32, &str)> {
    let (pid, rest) = id.strip_prefix("ekd")?.split_once('t')?;
    let (started, number) = rest.split_once('x')?;
    number.parse::<u32>().ok()?;
    started.parse::<u64>().ok()?;
    Some((pid.parse().ok()?, started))
}

pub(super) fn remove(id: &str) {
    // Unpinning detaches, so it comes before the interfaces go.
    let pins = Path::new(PINS).join(id);
    if let Err(error) = fs::remove_dir_all(&pins)
        && error.kind() != io::ErrorKind::NotFound
    {
        say(format!("cannot remove {}: {error}", pins.display()));
    }
    take_away(id, Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_and_others_say_nothing() {
        assert_eq!(owner("ekd4711t815x0"), Some((4711, "815")));
        for other in [
            "ekd4711x0",
            "ek4711x0",
            "ekd4711t815",
            "ekdt815x0",
            "ekd1tx0",
            "ekd1t2xy",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
