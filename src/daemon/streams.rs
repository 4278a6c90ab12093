//! Where a node listens for TCP: on its UDP number, and a super peer on 443 as well where it can.

use std::io;
use std::net::SocketAddr;

use crossbeam_channel::Sender;

use crate::control::News;
use crate::failure::{ExitCode, Failure};
use crate::report;
use crate::stream::{HTTPS, Inward, Outlets, Proxy, Streams};

/// What `--listen` names, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// For UDP, and TCP on the same number.
    pub(super) both: Vec<SocketAddr>,
    /// For TCP alone: 443 beside another number.
    pub(super) https: Vec<SocketAddr>,
}

impl Wanted {
    pub(super) fn of(listen: &[SocketAddr]) -> Self {
        let (https, both): (Vec<SocketAddr>, _) = listen.iter().partition(|at| at.port() == HTTPS);
        if both.is_empty() { Self { both: https, https: both } } else { Self { both, https } }
    }
}

/// Starts the streams of a node; nothing listens yet.
pub(super) fn start(
    outlets: Outlets,
    inward: Box<dyn Inward>,
    proxy: Option<Proxy>,
    news: &Sender<News>,
) -> Result<Streams, Failure> {
    let news = news.clone();
    let tell = Box::new(move |id, event| news.try_send(News::Stream(id, event)).is_ok());
    Streams::start(outlets, inward, tell, proxy)
        .map_err(|error| Failure::other(format!("no TCP connections can be made: {error}"), "try again"))
}

/// Listens beside the UDP sockets at `udp`, and on 443: where `wanted` says so, and elsewhere if `offers`, where an
/// address that is taken is only reported. `required`: a number that is taken by somebody else is an error.
pub(super) fn listen(
    streams: &Streams,
    udp: &[SocketAddr],
    wanted: &Wanted,
    required: bool,
    offers: bool,
) -> Result<report::Streams, Failure> {
    let mut report = report::Streams::default();
    let mut take = |at: SocketAddr, required: bool| match streams.listen(at) {
        Ok(at) => {
            report.listen.push(at);
            Ok(())
        }
        Err(error) if required => Err(refused(at, &error)),
        Err(error) => {
            report.refused.push(format!("{at}: {error}"));
            Ok(())
        }
    };
    for at in udp {
        take(*at, required)?;
    }
    for at in &wanted.https {
        take(*at, true)?;
    }
    let has = |at: &SocketAddr| {
        udp.contains(at) || wanted.https.iter().any(|other| other.is_ipv4() == at.is_ipv4())
    };
    let others = udp.iter().map(|at| SocketAddr::new(at.ip(), HTTPS)).filter(|at| offers && !has(at));
    for at in others {
        take(at, false)?;
    }
    Ok(report)
}

fn refused(at: SocketAddr, error: &io::Error) -> Failure {
    let (code, what, mend) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            ExitCode::Conflict,
            format!("TCP port {at} is taken"),
            "stop the program that uses it (ss -tlpn), or choose another with --listen",
        ),
        io::ErrorKind::PermissionDenied => (
            ExitCode::NotPermitted,
            format!("no permission to listen on TCP {at}"),
            "run as root, or choose a port above 1023 with --listen",
        ),
        _ => (
            ExitCode::Other,
            format!("cannot listen on TCP {at} ({error})"),
            "check --listen against the addresses of ip address",
        ),
    };
    Failure::new(code, what, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|at| at.parse().unwrap()).collect()
    }

    #[test]
    fn https_beside_another_number_is_for_tcp_alone() {
        let wanted = Wanted::of(&addresses(&["0.0.0.0:51860", "0.0.0.0:443", "[::]:51860"]));
        assert_eq!(wanted.both, addresses(&["0.0.0.0:51860", "[::]:51860"]));
        assert_eq!(wanted.https, addresses(&["0.0.0.0:443"]));
        let alone = Wanted::of(&addresses(&["0.0.0.0:443"]));
        assert_eq!((alone.both, alone.https), (addresses(&["0.0.0.0:443"]), Vec::new()));
        assert_eq!(Wanted::of(&[]), Wanted::default());
    }

    #[test]
    fn a_taken_number_is_an_error_where_it_was_asked_for() {
        struct Nobody;
        impl Inward for Nobody {
            fn take(
                &mut self,
                _: frejus_overlay::locator::StreamId,
                _: SocketAddr,
                _: &mut [u8],
                _: &[crate::stream::Run],
            ) {
            }
        }
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let (news, _told) = crossbeam_channel::bounded(1);
        let streams = start(Outlets::default(), Box::new(Nobody), None, &news).unwrap();
        let failure = listen(&streams, &[taken], &Wanted::default(), true, false).unwrap_err();
        assert_eq!(failure.code, ExitCode::Conflict);
        let report = listen(&streams, &[taken], &Wanted::default(), false, false).unwrap();
        assert!(report.listen.is_empty() && report.refused[0].starts_with(&taken.to_string()), "{report:?}");
        let wanted = Wanted { both: Vec::new(), https: vec![taken] };
        assert!(listen(&streams, &[], &wanted, false, false).is_err(), "it was asked for");
    }
}
