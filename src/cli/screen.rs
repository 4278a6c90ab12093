//! What is printed: standard output, colours for people, units that people read.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// Writes to standard output, and ends quietly if nobody reads any more, as in `frejus peers | head -1`.
///
/// # Errors
/// The output can't be written, such as to a full disk.
pub(super) fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::other(format!("standard output: {error}"), "send it elsewhere")),
        Ok(()) => Ok(()),
    }
}

/// One line to standard output.
///
/// # Errors
/// As [`print()`].
pub(super) fn print_line(text: impl Display) -> Result<(), Failure> {
    print(format_args!("{text}\n"))
}

/// One object to standard output.
///
/// # Errors
/// As [`print()`].
pub(super) fn print_json(report: &impl Serialize) -> Result<(), Failure> {
    print_line(serde_json::to_string(report).expect("reports have string keys only"))
}

/// One line to standard error; if that is gone, there is nobody to tell.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A hint for a person; scripts are spared.
pub(super) fn hint(text: impl Display) {
    if std::io::stderr().is_terminal() {
        say(text);
    }
}

/// Colours, where they are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colours(bool);

impl Colours {
    /// On a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    #[cfg(test)]
    pub(super) const fn new(wanted: bool) -> Self {
        Self(wanted)
    }

    pub(super) fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    pub(super) fn warning(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    pub(super) fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

/// Columns under a heading, without lines; the columns named in `right` hold numbers.
pub(super) fn columns(heading: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().copied());
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `1.5 KiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would be rounded to 1024 is one of the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// `42 s`, `3 min`, `2 h`, `5 d`: the largest unit that is there at least once.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `12.3 ms`.
pub(super) fn milliseconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.1} ms") }
}

/// `500 ms`, `30 s`, `90 s`.
pub(super) fn span(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// The value, or a dash.
pub(super) fn or_dash(value: Option<String>) -> String {
    value.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// The values with `separator` between them, or a dash.
pub(super) fn list<T: Display>(values: &[T], separator: &str) -> String {
    or_dash(Some(values.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1_048_575, 5 << 20, 3 << 40].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 MiB", "3.0 TiB"]
        );
        assert_eq!(
            [0, 59, 60, 3599, 3600, 86_400].map(age),
            ["0 s", "59 s", "1 min", "59 min", "1 h", "1 d"]
        );
        assert_eq!([0.021, 9.994, 12.34].map(milliseconds), ["0.02 ms", "9.99 ms", "12.3 ms"]);
        assert_eq!(span(Duration::from_millis(1500)), "1500 ms");
        assert_eq!(list::<u8>(&[], ", "), "-");
    }

    #[test]
    fn columns_are_aligned_without_blanks_at_the_end() {
        let rows = vec![
            vec!["b".into(), "7".into(), String::new()],
            vec!["printer".into(), "12".into(), "x".into()],
        ];
        assert_eq!(
            columns(&["NAME", "N", "REST"], &[1], rows),
            "NAME      N  REST\nb         7\nprinter  12  x\n"
        );
    }

    #[test]
    fn colours_only_where_wanted() {
        assert_eq!(Colours::new(false).good("ready"), "ready");
        assert_eq!(Colours::new(true).good("ready"), "\u{1b}[32mready\u{1b}[0m");
    }
}
