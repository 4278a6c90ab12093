//! `frejus ping`: echoes through the data path, one after the other.

use std::time::{Duration, Instant};

use super::arguments::Ping as Arguments;
use super::peers::way;
use super::screen;
use crate::client::Client;
use crate::failure::{ExitCode, Failure};
use crate::report::{Echo, PathKind, Ping, PingReply, SCHEMA};

/// Echoes that are sent unless the user says otherwise.
const COUNT: u32 = 4;
/// The same with `--until-direct`: at 200 ms each, longer than every way to a direct path takes but a guess;
const COUNT_UNTIL_DIRECT: u32 = 30;
/// and longer than that one takes.
const COUNT_GUESSING: u32 = 130;
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_UNTIL_DIRECT: Duration = Duration::from_millis(200);

pub(super) fn run(client: &Client, arguments: &Arguments) -> Result<(), Failure> {
    let mut round = Round::new(arguments);
    for seq in 1.. {
        let began = Instant::now();
        let answer = client.ping(&arguments.peer, arguments.timeout);
        let line = round.take(seq, answer)?;
        if !arguments.output.json {
            screen::print_line(line)?;
        }
        if round.over(seq) {
            break;
        }
        std::thread::sleep(round.interval.saturating_sub(began.elapsed()));
    }
    if arguments.output.json {
        screen::print_json(&round.report)?;
    } else {
        screen::print_line(round.summary())?;
    }
    round.verdict()
}

/// Echoes so far, and when it is enough.
struct Round {
    report: Ping,
    count: u32,
    interval: Duration,
    until_direct: bool,
    /// Unless the user has said how many, an echo more as long as the node may still find a direct path.
    may_go_on: bool,
    guessing: bool,
    direct_wanted: bool,
    last_failure: Option<Failure>,
}

impl Round {
    fn new(arguments: &Arguments) -> Self {
        let (count, interval) = match arguments.until_direct {
            true => (COUNT_UNTIL_DIRECT, INTERVAL_UNTIL_DIRECT),
            false => (COUNT, INTERVAL),
        };
        let report =
            Ping { schema: SCHEMA, peer: arguments.peer.clone(), replies: Vec::new(), sent: 0, received: 0 };
        Self {
            report,
            count: arguments.count.unwrap_or(count),
            interval,
            until_direct: arguments.until_direct,
            may_go_on: arguments.until_direct && arguments.count.is_none(),
            guessing: false,
            direct_wanted: arguments.until_direct || arguments.require_direct,
            last_failure: None,
        }
    }

    /// Counts an answer; gives the line to print, or the failure that makes further echoes pointless.
    fn take(&mut self, seq: u32, answer: Result<PingReply, Failure>) -> Result<String, Failure> {
        let unanswered = |code| matches!(code, ExitCode::Unreachable | ExitCode::TimedOut | ExitCode::Other);
        match answer {
            Ok(reply) => {
                self.report.sent += 1;
                self.report.received += 1;
                self.guessing = reply.guessing;
                let line = reply_line(seq, &reply);
                self.report.peer = reply.peer;
                self.report.replies.push(Echo { seq, rtt_ms: reply.rtt_ms, path: reply.path });
                Ok(line)
            }
            Err(failure) if unanswered(failure.code) => {
                self.report.sent += 1;
                let line = format!("no reply from {}: seq={seq} {}", self.report.peer, failure.what);
                self.last_failure = Some(failure);
                Ok(line)
            }
            Err(failure) => Err(failure),
        }
    }

    fn over(&self, seq: u32) -> bool {
        let count = if self.may_go_on && self.guessing { COUNT_GUESSING } else { self.count };
        seq >= count || self.until_direct && self.direct()
    }

    fn direct(&self) -> bool {
        self.report.replies.iter().any(|echo| echo.path.kind == PathKind::Direct)
    }

    fn summary(&self) -> String {
        let Ping { peer, sent, received, replies, .. } = &self.report;
        let lost = (sent - received) * 100 / sent.max(&1);
        let mut text = format!("--- {peer}: {sent} sent, {received} received, {lost} % lost");
        if !replies.is_empty() {
            let times = || replies.iter().map(|echo| echo.rtt_ms);
            let least = times().fold(f64::INFINITY, f64::min);
            let most = times().fold(0.0, f64::max);
            let mean = times().sum::<f64>() / f64::from(*received);
            text.push_str(&format!(", rtt min/avg/max {least:.2}/{mean:.2}/{most:.2} ms"));
        }
        text
    }

    fn verdict(&self) -> Result<(), Failure> {
        let peer = &self.report.peer;
        let Some(last) = self.report.replies.last() else {
            let mend = self.last_failure.as_ref().map_or("frejus resolve shows where it may be", |f| &f.mend);
            return Err(Failure::new(ExitCode::Unreachable, format!("{peer} does not answer"), mend));
        };
        if self.direct_wanted && !self.direct() {
            let what = format!("{peer} answers only by {}", way(&last.path));
            return Err(Failure::new(ExitCode::RelayOnly, what, "frejus status tells the NAT on this side"));
        }
        Ok(())
    }
}

fn reply_line(seq: u32, reply: &PingReply) -> String {
    let PingReply { peer, address, rtt_ms, path, .. } = reply;
    let via = way(path);
    format!("reply from {peer} ({address}): seq={seq} time={} via {via}", screen::milliseconds(*rtt_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::Output;
    use crate::report::samples;

    fn round(until_direct: bool, require_direct: bool) -> Round {
        Round::new(&Arguments {
            peer: "10.93.4.7".into(),
            count: None,
            until_direct,
            require_direct,
            timeout: Duration::from_secs(3),
            output: Output { json: false },
        })
    }

    fn silence() -> Result<PingReply, Failure> {
        Err(Failure::new(ExitCode::Unreachable, "no echo within 3 s", "try later"))
    }

    #[test]
    fn lines_as_ping_prints_them() {
        let mut round = round(false, false);
        assert_eq!(
            round.take(1, Ok(samples::ping_reply(samples::relayed()))).unwrap(),
            "reply from b (10.93.4.7): seq=1 time=12.3 ms via relay via s, tls"
        );
        assert_eq!(
            round.take(2, Ok(samples::ping_reply(samples::direct()))).unwrap(),
            "reply from b (10.93.4.7): seq=2 time=12.3 ms via direct 203.0.113.11:40211, punched"
        );
        assert_eq!(round.take(3, silence()).unwrap(), "no reply from b: seq=3 no echo within 3 s");
        assert_eq!(
            round.summary(),
            "--- b: 3 sent, 2 received, 33 % lost, rtt min/avg/max 12.34/12.34/12.34 ms"
        );
        assert!(!round.over(3) && round.over(4));
        assert_eq!(round.verdict(), Ok(()));
    }

    #[test]
    fn until_direct_stops_at_the_first_direct_echo() {
        let mut round = round(true, false);
        round.take(1, Ok(samples::ping_reply(samples::relayed()))).unwrap();
        assert!(!round.over(1));
        assert_eq!(round.verdict().unwrap_err().code, ExitCode::RelayOnly);
        round.take(2, Ok(samples::ping_reply(samples::direct()))).unwrap();
        assert!(round.over(2));
        assert_eq!(round.verdict(), Ok(()));
        assert_eq!((round.count, round.interval), (30, Duration::from_millis(200)));
    }

    #[test]
    fn until_direct_goes_on_while_the_node_guesses() {
        let mut round = round(true, false);
        let guessing = PingReply { guessing: true, ..samples::ping_reply(samples::relayed()) };
        round.take(30, Ok(guessing.clone())).unwrap();
        assert!(!round.over(30) && !round.over(129) && round.over(130));
        round.take(31, Ok(samples::ping_reply(samples::relayed()))).unwrap();
        assert!(round.over(31), "there is nothing to wait for");
        round.may_go_on = false;
        round.take(32, Ok(guessing)).unwrap();
        assert!(round.over(32), "the user has said how many");
    }

    #[test]
    fn only_a_relay_is_not_direct() {
        for (direct_required, verdict) in [(true, Some(ExitCode::RelayOnly)), (false, None)] {
            let mut round = round(false, direct_required);
            round.take(1, Ok(samples::ping_reply(samples::relayed()))).unwrap();
            assert_eq!(round.verdict().err().map(|failure| failure.code), verdict);
        }
    }

    #[test]
    fn silence_is_unreachable_and_an_unknown_peer_ends_it() {
        let mut round = round(false, true);
        round.take(1, silence()).unwrap();
        let failure = round.verdict().unwrap_err();
        assert_eq!(failure.code, ExitCode::Unreachable);
        assert_eq!(failure.to_string(), "10.93.4.7 does not answer: try later");
        let unknown = Failure::new(ExitCode::NoSuchPeer, "no peer x", "frejus peers");
        assert_eq!(round.take(2, Err(unknown.clone())), Err(unknown));
    }
}
