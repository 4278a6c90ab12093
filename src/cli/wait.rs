//! `frejus wait`: asks again and again, until it is so or the time is over.

use std::time::{Duration, Instant};

use super::arguments::Wait as Arguments;
use super::screen;
use crate::client::Client;
use crate::failure::{ExitCode, Failure};
use crate::paths_on_disk::{Roots, Selection};
use crate::report::{PathKind, State};

/// How often a node is asked: often enough for a script, rarely enough for the node.
const INTERVAL: Duration = Duration::from_millis(100);
/// The longest that one echo is waited for, so that the next can take a better way.
const ECHO: Duration = Duration::from_secs(2);
/// What a node is given for its answer, however little time is left.
const ANSWER: Duration = Duration::from_secs(1);

pub(super) fn run(selection: &Selection, roots: &Roots, arguments: &Arguments) -> Result<(), Failure> {
    let goal = match &arguments.peer {
        None => "the node is not ready".to_owned(),
        Some(peer) if arguments.direct => format!("no direct path to {peer}"),
        Some(peer) => format!("{peer} does not answer"),
    };
    until(arguments.timeout, &goal, |left| {
        // The network's state may be made while we wait, so that the place is looked for each time.
        let client = Client::new(&selection.place(roots)?.socket)?;
        match &arguments.peer {
            None => ready(&client, left),
            Some(peer) => reached(&client, peer, arguments.direct, left),
        }
    })
}

/// Where it is not so yet: what there is.
type Step = Result<Option<String>, Failure>;

fn ready(client: &Client, left: Duration) -> Step {
    let status = client.status_within(left.max(ANSWER))?;
    if status.state == State::Ready {
        return Ok(None);
    }
    let first = status.attention.first().map(|item| format!(", {}", item.what)).unwrap_or_default();
    Ok(Some(format!("it is {}{first}", status.state)))
}

fn reached(client: &Client, peer: &str, direct: bool, left: Duration) -> Step {
    let reply = client.ping(peer, left.min(ECHO))?;
    if !direct || reply.path.kind == PathKind::Direct {
        return Ok(None);
    }
    Ok(Some(format!("it answers by {}", super::peers::way(&reply.path))))
}

/// Repeats `step` until it is content or `timeout` is over; it is tried once at least.
fn until(timeout: Duration, goal: &str, mut step: impl FnMut(Duration) -> Step) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        // Less than a tenth of a second is no fair chance for an echo.
        let outcome = step(left.max(INTERVAL));
        match &outcome {
            Ok(None) => return Ok(()),
            Err(failure) if matches!(failure.code, ExitCode::NotPermitted | ExitCode::Usage) => {
                return outcome.map(|_| ());
            }
            _ if began.elapsed() >= timeout => return Err(too_late(timeout, goal, outcome)),
            _ => std::thread::sleep(INTERVAL.min(timeout.saturating_sub(began.elapsed()))),
        }
    }
}

fn too_late(timeout: Duration, goal: &str, last: Step) -> Failure {
    let time = screen::span(timeout);
    match last {
        Err(failure) if matches!(failure.code, ExitCode::NotRunning | ExitCode::NoSuchPeer) => failure,
        Err(failure) => {
            Failure::new(ExitCode::TimedOut, format!("{goal} after {time} ({})", failure.what), failure.mend)
        }
        Ok(state) => {
            let state = state.map(|state| format!(" ({state})")).unwrap_or_default();
            let mend = "frejus status says what needs attention, --timeout waits longer";
            Failure::new(ExitCode::TimedOut, format!("{goal} after {time}{state}"), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: ExitCode) -> Failure {
        Failure::new(code, "what", "mend")
    }

    #[test]
    fn goes_on_until_it_is_so() {
        let mut steps = vec![Ok(None), Ok(Some("starting".to_owned())), Err(failure(ExitCode::NotRunning))]
            .into_iter()
            .rev();
        assert_eq!(until(Duration::from_secs(60), "goal", |_| steps.next().unwrap()), Ok(()));
        assert!(steps.next().is_none());
    }

    #[test]
    fn the_last_answer_decides_the_code() {
        for (last, code) in [
            (Ok(Some("degraded".to_owned())), ExitCode::TimedOut),
            (Err(failure(ExitCode::Unreachable)), ExitCode::TimedOut),
            (Err(failure(ExitCode::NotRunning)), ExitCode::NotRunning),
            (Err(failure(ExitCode::NoSuchPeer)), ExitCode::NoSuchPeer),
        ] {
            assert_eq!(until(Duration::ZERO, "goal", |_| last.clone()).unwrap_err().code, code);
        }
        let late =
            too_late(Duration::from_secs(30), "the node is not ready", Ok(Some("it is degraded".into())));
        assert!(late.what.starts_with("the node is not ready after 30 s (it is degraded)"), "{late}");
    }

    #[test]
    fn what_time_does_not_mend_ends_at_once() {
        let mut asked = 0;
        let ended = until(Duration::from_secs(60), "goal", |_| {
            asked += 1;
            Err(failure(ExitCode::NotPermitted))
        });
        assert_eq!((ended.unwrap_err().code, asked), (ExitCode::NotPermitted, 1));
    }
}
