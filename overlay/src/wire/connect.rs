//! The tunnel that an HTTP proxy makes (RFC 9110, section 9.3.6): what it is asked, and what it answers.
//!
//! Owns: the request's text and the answer's reading. Never: a socket; a password in `Debug`.

use std::fmt;
use std::net::SocketAddr;

use data_encoding::BASE64;

/// The longest answer that is read; proxies explain a refusal with a page, of which only the head counts.
pub const LONGEST_ANSWER: usize = 8 << 10;

/// Who we are to a proxy (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name, without a colon.
    pub user: String,
    /// What nobody is shown.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// What a proxy is sent so that it connects us to `to`.
#[must_use]
pub fn request(to: SocketAddr, credentials: Option<&Credentials>) -> Vec<u8> {
    let mut text = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let basic = BASE64.encode(format!("{user}:{password}").as_bytes());
        text.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// What a proxy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not all of it has come.
    Incomplete,
    /// The connection stands; what follows is the other end's, from this byte on.
    Connected(usize),
    /// It will not, with this status: 407 wants a password, or another one; 403 is a rule of the proxy.
    Refused(u16),
    /// This is no HTTP proxy.
    Nonsense,
}

/// Reads what has come so far.
#[must_use]
pub fn answer(bytes: &[u8]) -> Answer {
    let head = &bytes[..bytes.len().min(LONGEST_ANSWER)];
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(status) = status(line) else {
        // A line's beginning may still become one.
        let hopeful = line.len() == head.len() && head.len() < STATUS.len() && STATUS.starts_with(head);
        let partial = line.len() == head.len() && head.starts_with(STATUS) && head.len() < STATUS.len() + 6;
        return if hopeful || partial { Answer::Incomplete } else { Answer::Nonsense };
    };
    match head.windows(4).position(|end| end == b"\r\n\r\n") {
        Some(at) if (200..300).contains(&status) => Answer::Connected(at + 4),
        Some(_) => Answer::Refused(status),
        None if bytes.len() >= LONGEST_ANSWER => Answer::Nonsense,
        None => Answer::Incomplete,
    }
}

/// How every status line begins (RFC 9112, section 4); the minor version follows.
const STATUS: &[u8] = b"HTTP/1.";

/// The status in a status line; `None` if it is not one.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(STATUS)?;
    let [minor, b' ', digits @ ..] = rest else { return None };
    let (digits, rest) = digits.split_first_chunk::<3>()?;
    let ends = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\r'));
    if !minor.is_ascii_digit() || !ends || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_place_and_proves_who_asks() {
        let to: SocketAddr = "203.0.113.1:443".parse().unwrap();
        assert_eq!(request(to, None), b"CONNECT 203.0.113.1:443 HTTP/1.1\r\nHost: 203.0.113.1:443\r\n\r\n");
        // The example of RFC 7617, section 2.
        let credentials = Credentials { user: "Aladdin".into(), password: "open sesame".into() };
        let text = String::from_utf8(request(to, Some(&credentials))).unwrap();
        assert!(
            text.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"),
            "{text}"
        );
        assert!(!format!("{credentials:?}").contains("sesame"));
        let six = request("[2001:db8::1]:443".parse().unwrap(), None);
        assert!(six.starts_with(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n"));
    }

    #[test]
    fn answers() {
        for (text, expected) in [
            ("HTTP/1.0 200 Connection established\r\n\r\n", Answer::Connected(39)),
            ("HTTP/1.1 200 OK\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\nrest", Answer::Connected(50)),
            ("HTTP/1.1 407 Proxy Authentication Required\r\nA: b\r\n\r\n<html>", Answer::Refused(407)),
            ("HTTP/1.1 403\r\n\r\n", Answer::Refused(403)),
            ("HTTP/1.1 200 OK\r\nA", Answer::Incomplete),
            ("", Answer::Incomplete),
            ("HTT", Answer::Incomplete),
            ("HTTP/1.1 40", Answer::Incomplete),
            ("HTTP/1.1 4000 Much\r\n\r\n", Answer::Nonsense),
            ("HTTP/2 200\r\n\r\n", Answer::Nonsense),
            ("SSH-2.0-OpenSSH_9.2\r\n", Answer::Nonsense),
            ("HTTP/1.1 2x0\r\n\r\n", Answer::Nonsense),
        ] {
            assert_eq!(answer(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn an_endless_answer_ends() {
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        bytes.resize(LONGEST_ANSWER, b'a');
        assert_eq!(answer(&bytes), Answer::Nonsense);
    }
}
