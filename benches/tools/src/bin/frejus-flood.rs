//! `frejus-flood send ADDRESS:PORT SIZE RATE MILLISECONDS` (rate 0: as fast as it goes) and
//! `frejus-flood count ADDRESS:PORT`: each answers with one line of JSON.
#![allow(clippy::print_stdout, reason = "its answer")]

use std::net::UdpSocket;
use std::process::ExitCode;
use std::time::Duration;

use frejus_bench::{Flood, count, send};

/// The counter gives up if nothing comes for this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// And is done after a silence of this length: longer than the bounded queues between the two hold anything.
const QUIET: Duration = Duration::from_millis(100);

const USAGE: &str = "usage: frejus-flood send ADDRESS:PORT SIZE RATE MILLISECONDS | count ADDRESS:PORT";

fn run(arguments: &[&str]) -> Result<String, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| USAGE.to_owned());
    match arguments {
        ["send", to, size, rate, time] => {
            let to = to.parse().map_err(|_| USAGE)?;
            let (size, rate, time) = (number(size)?, number(rate)?, Duration::from_millis(number(time)?));
            let size = usize::try_from(size).ok().filter(|size| (8..=1472).contains(size));
            let size = size.ok_or("a size from 8 to 1472 bytes")?;
            let flood = Flood { to, size, rate: (rate > 0).then_some(rate), time };
            let sent = send(&flood).map_err(|error| format!("sending to {to}: {error}"))?;
            Ok(format!(r#"{{"sent":{},"seconds":{:.6}}}"#, sent.datagrams, sent.time.as_secs_f64()))
        }
        ["count", at] => {
            let told = |error| format!("counting at {at}: {error}");
            let counted = count(&UdpSocket::bind(at).map_err(told)?, PATIENCE, QUIET).map_err(told)?;
            let seconds = counted.time.as_secs_f64();
            let (received, reordered) = (counted.datagrams, counted.reordered);
            Ok(format!(r#"{{"received":{received},"reordered":{reordered},"seconds":{seconds:.6}}}"#))
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
