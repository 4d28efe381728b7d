//! Loading programs, and what the three kinds of them have in common.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::Ebpf;
use aya::programs::{Program, ProgramError, ProgramInfo, SchedClassifier, SkLookup, Xdp};

use super::{DatapathError, capabilities};

/// How often a load is tried again that was only interrupted: the verifier gives up with EAGAIN when a signal is
/// pending (kernel commit c3494801cd17), which is no verdict.
const TRIES: usize = 16;

/// Loads the program unless it is, and gives it in its type.
pub(super) fn loaded<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, DatapathError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    P: Loadable,
{
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    let program: &mut P = program.try_into().map_err(|error| refused(name, error))?;
    for _ in 0..TRIES {
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => return Ok(program),
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(refused(name, error)),
        }
    }
    program.load().map_err(|error| refused(name, error))?;
    Ok(program)
}

fn refused(name: &'static str, error: ProgramError) -> DatapathError {
    match error {
        ProgramError::LoadError { io_error, .. }
            if io_error.kind() == io::ErrorKind::PermissionDenied
                && !capabilities::sufficient() =>
        {
            DatapathError::NotPermitted
        }
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            tracing::debug!(name, log, "the verifier's log");
            DatapathError::Program {
                name,
                verdict: verdict(&log).to_owned(),
                source: io_error,
            }
        }
        other => DatapathError::Program {
            name,
            verdict: other.to_string(),
            source: io::Error::other(other),
        },
    }
}

/// The verifier's last word: the last line of its log before the statistics.
fn verdict(log: &str) -> &str {
    const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed "];
    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)))
        .unwrap_or("no reason given")
}

/// What the three kinds of programs have in common.
pub(super) trait Loadable {
    fn load(&mut self) -> Result<(), ProgramError>;
    fn descriptor(&self) -> Result<BorrowedFd<'_>, ProgramError>;
    fn id(&self) -> Result<ProgramInfo, ProgramError>;
    fn pin_at(&mut self, path: &Path) -> Result<(), aya::pin::PinError>;
}

macro_rules! loadable {
    ($($program:ty),*) => {$(
        impl Loadable for $program {
            fn load(&mut self) -> Result<(), ProgramError> {
                <$program>::load(self)
            }
            fn descriptor(&self) -> Result<BorrowedFd<'_>, ProgramError> {
                Ok(self.fd()?.as_fd())
            }
            fn id(&self) -> Result<ProgramInfo, ProgramError> {
                self.info()
            }
            fn pin_at(&mut self, path: &Path) -> Result<(), aya::pin::PinError> {
                self.pin(path)
            }
        }
    )*};
}
loadable!(Xdp, SchedClassifier, SkLookup);

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn the_last_word_of_the_verifier_is_told_without_its_log() {
        let log = "0: R1=ctx() R10=fp0\n; let x = 1 @ a.rs:1\nR1 invalid mem access 'scalar'\n\
                   verification time 23 usec\nstack depth 400+0+0\nprocessed 9 insns (limit 1000000)\n";
        assert_eq!(verdict(log), "R1 invalid mem access 'scalar'");
        assert_eq!(verdict(""), "no reason given");
    }
}
