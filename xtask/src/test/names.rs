//! Names of tests as people write them, in the words of the test runners.
//!
//! docs/accuracy.md says in which file a test is: `FILE::NAME`, or `FILE::*` for all there are. To the runners the file
//! is no part of the name, so that they would find nothing.

use anyhow::{Result, bail};

use crate::workspace;

/// Packages that have such files, in their `tests`.
const PACKAGES: [&str; 4] = ["ebpf", "userspace", "xtask", "tests"];

/// The file and the rest, where `name` begins with the name of a file of tests.
fn split(name: &str) -> Option<(&str, &str)> {
    let (file, rest) = name.split_once("::")?;
    let exists = PACKAGES.iter().any(|package| {
        let tests = workspace::root().join(package).join("tests");
        tests.join(format!("{file}.rs")).is_file() || tests.join(file).join("main.rs").is_file()
    });
    exists.then_some((file, rest))
}

/// Whether the arguments are for the runner as they are: an option may have the next one for its value.
fn are_options(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument.starts_with('-'))
}

/// Arguments of `cargo nextest run`.
pub(super) fn for_nextest(arguments: &[String]) -> Vec<String> {
    if are_options(arguments) {
        return arguments.to_vec();
    }
    let filter = |name: &String| match split(name) {
        Some((file, "*")) => format!("binary(={file})"),
        // A module may be called like a file.
        Some((file, rest)) => format!("binary(={file}) & test({rest}) | test({name})"),
        None => format!("test({name})"),
    };
    let filters = arguments.iter().map(filter);
    filters
        .flat_map(|filter| ["--filterset".to_owned(), filter])
        .collect()
}

/// Arguments of `cargo test`, which takes one name.
pub(super) fn for_cargo(arguments: &[String]) -> Result<Vec<String>> {
    if are_options(arguments) {
        return Ok(arguments.to_vec());
    }
    match arguments {
        [] => Ok(Vec::new()),
        [name] => match split(name) {
            Some((_, "*")) => bail!("{name}: all tests of a file at once need cargo-nextest"),
            Some((_, rest)) => Ok(vec![rest.to_owned()]),
            None => Ok(vec![name.clone()]),
        },
        _ => bail!("more than one name needs cargo-nextest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_name_with_its_file_finds_the_test_there() {
        let given = words("l4_counts::counts_are packets::spread l4_counts::* counts_are");
        let filters = [
            "binary(=l4_counts) & test(counts_are) | test(l4_counts::counts_are)",
            "binary(=packets) & test(spread) | test(packets::spread)",
            "binary(=l4_counts)",
            "test(counts_are)",
        ];
        let expected: Vec<String> = filters
            .iter()
            .flat_map(|filter| ["--filterset".to_owned(), (*filter).to_owned()])
            .collect();
        assert_eq!(for_nextest(&given), expected);
    }

    #[test]
    fn a_module_is_part_of_the_name() {
        assert_eq!(
            for_nextest(&words("names::tests")),
            words("--filterset test(names::tests)")
        );
    }

    #[test]
    fn options_and_their_values_are_the_runners_own() {
        let given = words("-E test(one) --nocapture");
        assert_eq!(for_nextest(&given), given);
        assert_eq!(for_cargo(&given).ok(), Some(given));
    }

    #[test]
    fn without_nextest_the_file_is_left_out_and_what_cannot_be_said_is_refused() {
        assert_eq!(
            for_cargo(&words("l4_counts::counts_are")).ok(),
            Some(words("counts_are"))
        );
        assert!(for_cargo(&words("l4_counts::*")).is_err());
        assert!(for_cargo(&words("one two")).is_err());
    }

    /// Every name that the page tells to give here.
    #[test]
    fn the_names_in_the_accuracy_page_begin_with_files_that_exist() {
        let page = workspace::root().join("docs/accuracy.md");
        let page = std::fs::read_to_string(page).unwrap_or_default();
        let quoted = page.split('`').skip(1).step_by(2);
        let names: Vec<&str> = quoted.filter(|word| word.contains("::")).collect();
        assert!(names.len() > 30, "{names:?}");
        for name in names {
            assert!(split(name).is_some(), "{name}");
        }
    }
}
