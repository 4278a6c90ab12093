//! Where a node's things lie: state directory, control socket, configuration.
//!
//! Owns: the defaults, and which network is meant when the user does not say. Never: what is in the files.

use std::path::{Path, PathBuf};

use crate::failure::{ExitCode, Failure};
use crate::options;

/// The directories under which every network of this machine has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Holds a state directory for each network.
    pub state: PathBuf,
    /// Holds a control socket for each running node.
    pub run: PathBuf,
    /// Holds a configuration for each network that has one.
    pub config: PathBuf,
}

impl Default for Roots {
    /// The Filesystem Hierarchy Standard 3.0: sections 5.8, 3.15 and 3.7.
    fn default() -> Self {
        Self { state: "/var/lib/frejus".into(), run: "/run/frejus".into(), config: "/etc/frejus".into() }
    }
}

impl Roots {
    /// The state directory of a network.
    #[must_use]
    pub fn state_of(&self, network: &str) -> PathBuf {
        self.state.join(network)
    }

    /// The control socket of a network's node.
    #[must_use]
    pub fn socket_of(&self, network: &str) -> PathBuf {
        self.run.join(format!("{network}.sock"))
    }

    /// The configuration of a network.
    #[must_use]
    pub fn config_of(&self, network: &str) -> PathBuf {
        self.config.join(format!("{network}.toml"))
    }

    /// The networks that this machine has a state of, in alphabetical order.
    ///
    /// # Errors
    /// The directory is there, but can't be read.
    pub fn networks(&self) -> Result<Vec<String>, Failure> {
        let unreadable = |error: std::io::Error| {
            let what = format!("{}: {error}", self.state.display());
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    Failure::new(ExitCode::NotPermitted, what, "run it as root, or say --state DIR")
                }
                _ => Failure::other(what, "say --state DIR"),
            }
        };
        let entries = match std::fs::read_dir(&self.state) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut networks = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && options::label(&name).as_deref() == Ok(&name) {
                networks.push(name);
            }
        }
        networks.sort();
        Ok(networks)
    }
}

/// What the user said about which node is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--network`.
    pub network: Option<String>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// The environment's `FREJUS_SOCKET`; any of the above goes before it.
    pub environment: Option<PathBuf>,
}

/// Where a running node can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its control socket.
    pub socket: PathBuf,
    /// Its state directory, where that is known too.
    pub state: Option<PathBuf>,
}

/// Where a node has, or is to have, its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The network's name, where the user or the directory says it.
    pub network: Option<String>,
    /// Its state directory.
    pub state: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Selection {
    /// Where to ask the node that is meant.
    ///
    /// # Errors
    /// No network on this machine ([`ExitCode::NotRunning`]), or several and none was picked
    /// ([`ExitCode::Usage`]).
    pub fn place(&self, roots: &Roots) -> Result<Place, Failure> {
        if let Some(socket) = self.chosen_socket(roots) {
            let state =
                self.state.clone().or_else(|| self.network.as_ref().map(|network| roots.state_of(network)));
            return Ok(Place { socket, state });
        }
        let network = only(&roots.networks()?, ExitCode::NotRunning)?;
        Ok(Place { socket: roots.socket_of(&network), state: Some(roots.state_of(&network)) })
    }

    /// Where the node that is meant has its things.
    ///
    /// # Errors
    /// No network on this machine ([`ExitCode::NotEnrolled`]), or several and none was picked
    /// ([`ExitCode::Usage`]).
    pub fn home(&self, roots: &Roots) -> Result<Home, Failure> {
        if let Some(network) = &self.network {
            return Ok(self.home_of(roots, network));
        }
        if let Some(state) = &self.state {
            let socket = self.chosen_socket(roots).unwrap_or_else(|| socket_in(state));
            return Ok(Home { network: None, state: state.clone(), socket });
        }
        Ok(self.home_of(roots, &only(&roots.networks()?, ExitCode::NotEnrolled)?))
    }

    /// Where a node of `network` has its things.
    #[must_use]
    pub fn home_of(&self, roots: &Roots, network: &str) -> Home {
        Home {
            network: Some(network.to_owned()),
            state: self.state.clone().unwrap_or_else(|| roots.state_of(network)),
            socket: self.chosen_socket(roots).unwrap_or_else(|| roots.socket_of(network)),
        }
    }

    fn chosen_socket(&self, roots: &Roots) -> Option<PathBuf> {
        let in_state = || self.state.as_deref().map(socket_in);
        let of_network = || self.network.as_ref().map(|network| roots.socket_of(network));
        self.socket.clone().or_else(in_state).or_else(of_network).or_else(|| self.environment.clone())
    }
}

fn socket_in(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// The one network of this machine.
fn only(networks: &[String], lacking: ExitCode) -> Result<String, Failure> {
    match networks {
        [network] => Ok(network.clone()),
        [] => Err(Failure::new(
            lacking,
            "this machine is in no network",
            "frejus up --join CODE, or say --state DIR",
        )),
        several => Err(Failure::usage(
            format!("this machine is in several networks ({})", several.join(", ")),
            format!("say which one, such as -n {}", several[0]),
        )),
    }
}

/// The file beside a control socket that the node locks and writes its process ID to.
#[must_use]
pub fn pid_file_of(socket: &Path) -> PathBuf {
    socket.with_extension("pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(networks: &[&str]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let under = |name: &str| dir.path().join(name);
        let roots = Roots { state: under("lib"), run: under("run"), config: under("etc") };
        for network in networks {
            std::fs::create_dir_all(roots.state_of(network)).unwrap();
        }
        (dir, roots)
    }

    #[test]
    fn the_only_network_needs_no_name() {
        let (_dir, roots) = roots(&["mymed"]);
        std::fs::write(roots.state.join("a-file"), "").unwrap();
        std::fs::create_dir(roots.state.join("lost+found")).unwrap();
        let place = Selection::default().place(&roots).unwrap();
        assert_eq!(place.socket, roots.run.join("mymed.sock"));
        let home = Selection::default().home(&roots).unwrap();
        assert_eq!((home.network.as_deref(), home.state), (Some("mymed"), roots.state.join("mymed")));
    }

    #[test]
    fn several_networks_are_listed() {
        let (_dir, roots) = roots(&["b", "a"]);
        let failure = Selection::default().place(&roots).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        assert_eq!(
            failure.to_string(),
            "this machine is in several networks (a, b): say which one, such as -n a"
        );
    }

    #[test]
    fn no_network_is_not_running_or_not_enrolled() {
        let (_dir, roots) = roots(&[]);
        assert_eq!(Selection::default().place(&roots).unwrap_err().code, ExitCode::NotRunning);
        assert_eq!(Selection::default().home(&roots).unwrap_err().code, ExitCode::NotEnrolled);
    }

    #[test]
    fn what_is_said_on_the_command_line_goes_before_the_environment() {
        let (_dir, roots) = roots(&["a", "b"]);
        let environment = Selection { environment: Some("/env.sock".into()), ..Selection::default() };
        assert_eq!(environment.place(&roots).unwrap().socket, Path::new("/env.sock"));
        let network = Selection { network: Some("b".into()), ..environment.clone() };
        assert_eq!(network.place(&roots).unwrap().socket, roots.run.join("b.sock"));
        let state = Selection { state: Some("/s".into()), ..network };
        assert_eq!(state.place(&roots).unwrap().socket, Path::new("/s/control.sock"));
        assert_eq!(state.home(&roots).unwrap().state, Path::new("/s"));
        let socket = Selection { socket: Some("/x.sock".into()), ..state };
        assert_eq!(socket.place(&roots).unwrap().socket, Path::new("/x.sock"));
        assert_eq!(socket.home(&roots).unwrap().socket, Path::new("/x.sock"));
    }

    #[test]
    fn a_new_network_has_its_place_under_its_name() {
        let (_dir, roots) = roots(&["a", "b"]);
        let home = Selection::default().home_of(&roots, "c");
        assert_eq!((home.state, home.socket), (roots.state.join("c"), roots.run.join("c.sock")));
    }
}
