//! The deeds that the command line asks for: founding, enrolling, running.

use std::path::Path;

use crate::failure::Failure;
use crate::options::{CreateOptions, Created, InviteRequest, JoinOptions, Joined, UpOptions};

fn not_built_in(deed: &str) -> Failure {
    Failure::other(format!("{deed} is not built in"), "use a complete build of frejus")
}

/// Founds a network in a state directory.
///
/// # Errors
/// Whatever keeps the state from being made.
pub fn create(options: &CreateOptions) -> Result<Created, Failure> {
    Err(not_built_in(&format!("create {}", options.network)))
}

/// Enrols this node with a code; `progress` gets one line a change.
///
/// # Errors
/// Whatever keeps the node out.
pub fn join(options: &JoinOptions, progress: &mut dyn FnMut(&str)) -> Result<Joined, Failure> {
    progress(&format!("reading {:?}", options.code));
    Err(not_built_in("join"))
}

/// Runs the node until it is told to stop; `progress` gets one line a change.
///
/// # Errors
/// Whatever keeps the node from running.
pub fn up(options: UpOptions, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    progress(&format!("reading {}", options.state.display()));
    Err(not_built_in("up"))
}

/// Makes a code out of the founder's state on disk, while no node runs.
///
/// # Errors
/// Whatever keeps the code from being made.
pub fn invite_offline(state: &Path, request: InviteRequest) -> Result<String, Failure> {
    Err(not_built_in(&format!("invite of a {} in {}", request.role, state.display())))
}
