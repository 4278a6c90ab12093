//! What crosses the network: streams of pings, web pages, byte counters. Knows nothing of the product.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::run::{Host, Process};
use crate::wait::wait_for;

/// Port of the web server; unprivileged, as a user's would be.
const WEB_PORT: u16 = 8000;

/// Time for a server or a last packet inside one machine.
const SOON: Duration = Duration::from_secs(10);

/// The kernel's `ping`, in the background, a line a reply.
#[derive(Debug)]
pub struct PingStream {
    process: Process,
}

/// What a stream of pings saw.
#[derive(Clone, Debug)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Replies that came twice.
    pub duplicates: u32,
    /// Longest time between two replies.
    pub longest_gap: Duration,
}

impl PingStream {
    /// Pings `to` every `interval` seconds until [`PingStream::finish`].
    pub fn start(from: &Host, to: &str, interval: f32) -> Self {
        let interval = interval.to_string();
        let argv = ["ping", "-D", "-n", "-s", "64", "-i", &interval, to];
        let name = format!("ping-{to}");
        fs::remove_file(from.scratch.join("logs").join(format!("{}-{name}.out", from.name))).ok();
        Self { process: from.spawn(&name, &argv) }
    }

    /// Replies so far.
    pub fn replies(&self) -> usize {
        self.process.stdout().lines().filter(|line| line.contains("icmp_seq=")).count()
    }

    /// Waits until `more` further replies have come.
    pub fn wait_replies(&self, more: usize, limit: Duration) {
        let before = self.replies();
        wait_for("further ping replies", limit, || self.replies() >= before + more);
    }

    /// Ends the stream and counts.
    pub fn finish(mut self) -> PingReport {
        self.process.signal(Signal::SIGINT);
        self.process.wait(SOON);
        PingReport::parse(&self.process.stdout())
    }
}

impl PingReport {
    /// Losses that the last, unfinished round trip can't explain.
    pub const fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received).saturating_sub(1)
    }

    fn parse(text: &str) -> Self {
        let times = text.lines().filter(|line| line.contains("icmp_seq=")).filter_map(stamp);
        let times: Vec<f64> = times.collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let summary = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
        Self {
            sent: number_before(summary, " packets transmitted"),
            received: number_before(summary, " received"),
            duplicates: u32::try_from(text.matches("(DUP!)").count()).expect("a test's worth of pings"),
            longest_gap: Duration::from_secs_f64(gap.max(0.0)),
        }
    }
}

/// The wall-clock stamp `[1700000000.123456]` that `ping -D` puts in front.
fn stamp(line: &str) -> Option<f64> {
    line.strip_prefix('[')?.split_once(']')?.0.parse().ok()
}

fn number_before(text: &str, word: &str) -> u32 {
    let front = text.split(word).next().unwrap_or_default();
    front.rsplit([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Average round trip in milliseconds from ping's last line.
pub fn round_trip_ms(ping: &str) -> f64 {
    let line = ping.lines().find(|line| line.starts_with("rtt ")).unwrap_or_default();
    line.split('/').nth(4).and_then(|average| average.parse().ok()).unwrap_or(f64::NAN)
}

/// An unmodified web server (`python3 -m http.server`) with one page, bound to one address of a host.
#[derive(Debug)]
pub struct DownloadSite {
    address: IpAddr,
    _process: Process,
}

impl DownloadSite {
    /// Serves `page` and waits until it is listening.
    pub fn open(on: &Host, address: IpAddr, page: &str) -> Self {
        let name = format!("web-{}", if address.is_ipv4() { "v4" } else { "v6" });
        let root = on.scratch.join(format!("{}-{name}", on.name));
        fs::create_dir_all(&root).expect("the scratch directory is writable");
        fs::write(root.join("page"), page).expect("the scratch directory is writable");
        let (port, bound, root) = (WEB_PORT.to_string(), address.to_string(), root.to_string_lossy());
        let argv = ["python3", "-m", "http.server", &port, "--bind", &bound, "--directory", &root];
        let process = on.spawn(&name, &argv);
        wait_for(&format!("a web server on {address}"), SOON, || {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            on.ok(&["ss", family, "-Htln", &format!("sport = :{WEB_PORT}")]).contains(&bound)
        });
        Self { address, _process: process }
    }

    /// The page as `curl` on `from` gets it; panics when it does not.
    pub fn fetch(&self, from: &Host) -> String {
        let url = match self.address {
            IpAddr::V4(address) => format!("http://{address}:{WEB_PORT}/page"),
            IpAddr::V6(address) => format!("http://[{address}]:{WEB_PORT}/page"),
        };
        from.ok(&["curl", "-gsS", "--fail", "--noproxy", "*", "--max-time", "30", &url])
    }
}

/// Bytes that crossed `device` of `host` in both directions so far.
pub fn bytes(host: &Host, device: &str) -> u64 {
    let statistics = format!("/sys/class/net/{device}/statistics");
    let text = host.ok(&["cat", &format!("{statistics}/rx_bytes"), &format!("{statistics}/tx_bytes")]);
    text.lines().filter_map(|line| line.trim().parse::<u64>().ok()).sum()
}

/// A capture of whole packets on one device.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: std::path::PathBuf,
}

impl Capture {
    /// Starts to capture everything that crosses `device` of `host`.
    pub fn start(host: &Host, device: &str) -> Self {
        let file = host.scratch.join(format!("{}-{device}.pcap", host.name));
        let path = file.to_string_lossy();
        let argv =
            ["tcpdump", "--immediate-mode", "-i", device, "-n", "-U", "-s", "0", "-Z", "root", "-w", &path];
        let process = host.spawn(&format!("tcpdump-{device}"), &argv);
        wait_for("tcpdump listens", SOON, || process.stderr().contains("listening on"));
        Self { process, file }
    }

    /// Ends the capture and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.process.signal(Signal::SIGINT);
        self.process.wait(SOON);
        fs::read(&self.file).expect("tcpdump has written its file")
    }
}

/// True when `needle` stands somewhere in `hay`.
pub fn contains(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_report_counts_losses_gaps_and_duplicates() {
        let text = "PING 10.0.0.2 (10.0.0.2) 64(92) bytes of data.\n\
            [1700000000.100000] 72 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.1 ms\n\
            [1700000000.200000] 72 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=0.1 ms\n\
            [1700000000.200100] 72 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=0.1 ms (DUP!)\n\
            [1700000001.700100] 72 bytes from 10.0.0.2: icmp_seq=17 ttl=64 time=0.1 ms\n\
            --- 10.0.0.2 ping statistics ---\n\
            17 packets transmitted, 3 received, +1 duplicates, 82% packet loss, time 1600ms\n";
        let report = PingReport::parse(text);
        assert_eq!((report.sent, report.received, report.duplicates), (17, 3, 1));
        assert_eq!(report.longest_gap.as_millis(), 1500);
        assert_eq!(report.lost(), 13);
    }

    #[test]
    fn the_average_round_trip_is_the_second_figure() {
        assert_eq!(round_trip_ms("rtt min/avg/max/mdev = 0.1/0.25/0.4/0.1 ms\n"), 0.25);
    }
}
