//! What is written down of a running laboratory, so that the next command finds it: `/run/frejus/lab/NAME/lab.json`.
//!
//! Never: what is in the nodes' own directories beside it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::extras::private;
use crate::lab::{Lab, namespace_exists, sweep};
use crate::nodes::Node;
use crate::topology::is_label;
use crate::trouble::{Kind, Result, Trouble};

/// Where laboratories lie. Gone after a reboot of the machine, as namespaces are.
pub const ROOT: &str = "/run/frejus/lab";

const FILE: &str = "lab.json";

/// A laboratory on disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The binary that its nodes run.
    pub binary: PathBuf,
    /// Hosts, routers, what runs.
    pub lab: Lab,
    /// Nodes of the product.
    pub nodes: Vec<Node>,
}

/// The place of one laboratory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    name: String,
    directory: PathBuf,
}

impl Place {
    /// The place of the laboratory `name`.
    ///
    /// # Errors
    /// That is no name.
    pub fn new(root: &Path, name: &str) -> Result<Self> {
        if !is_label(name) {
            let what = format!("`{name}` is no name for a laboratory");
            return Err(Trouble::usage(what, "letters, digits and hyphens, at most 20"));
        }
        Ok(Self { name: name.to_owned(), directory: root.join(name) })
    }

    /// The laboratory that is meant where the user names none: the only one.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn only(root: &Path) -> Result<Self> {
        let names = names(root);
        match &names[..] {
            [] => Err(Trouble::new(Kind::NotRunning, "no laboratory is up", "frejus lab up TOPOLOGY.toml")),
            [name] => Self::new(root, name),
            _ => Err(Trouble::usage(
                format!("{} laboratories are up", names.len()),
                format!("say --name: {}", names.join(", ")),
            )),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: the record, logs, the nodes' states.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What its namespaces' names begin with.
    pub fn tag(&self) -> String {
        format!("frlab-{}", self.name)
    }

    /// Makes the directory, for root alone; what a dead run left is removed first.
    ///
    /// # Errors
    /// The laboratory is up, or the directory can't be made.
    pub fn claim(&self) -> Result<()> {
        if self.is_up() {
            let what = format!("the laboratory {} is up", self.name);
            let mend = format!("frejus lab down --name {}, or say another --name", self.name);
            return Err(Trouble::new(Kind::Conflict, what, mend));
        }
        self.remove();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.directory).map_err(|error| Trouble::file(&self.directory, error))
    }

    /// Writes the record, whole.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self, record: &Record) -> Result<()> {
        let (path, next) = (self.directory.join(FILE), self.directory.join("lab.json.next"));
        let text = serde_json::to_string_pretty(record).expect("records have string keys only");
        private(&next, &text)?;
        std::fs::rename(&next, &path).map_err(|error| Trouble::file(&path, error))
    }

    /// Reads the record.
    ///
    /// # Errors
    /// There is no such laboratory, or the record is of another version.
    pub fn load(&self) -> Result<Record> {
        let path = self.directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let what = format!("no laboratory {} is up", self.name);
                Trouble::new(Kind::NotRunning, what, "frejus lab up TOPOLOGY.toml")
            }
            std::io::ErrorKind::PermissionDenied => {
                let what = format!("{}: permission denied", path.display());
                Trouble::new(Kind::NotPermitted, what, "run it as root, such as with sudo")
            }
            _ => Trouble::file(&path, error),
        })?;
        serde_json::from_str(&text).map_err(|error| {
            let what = format!("{}: {error}", path.display());
            Trouble::other(what, format!("frejus lab down --name {}, and up again", self.name))
        })
    }

    /// Removes every namespace and file of this name; and ends what runs in them.
    pub fn remove(&self) {
        if let Ok(mut record) = self.load() {
            record.nodes.iter().for_each(|node| node.service.end());
            record.lab.take_down();
        }
        let prefix = format!("{}-", self.tag());
        // Another laboratory's name may begin with this one's: its namespaces are known by its own record.
        let others: Vec<String> = self.others().iter().map(|name| format!("frlab-{name}-")).collect();
        let longer =
            |name: &str| others.iter().any(|other| other.len() > prefix.len() && name.starts_with(other));
        sweep(|name| name.starts_with(&prefix) && !longer(name), &[]);
        std::fs::remove_dir_all(&self.directory).ok();
    }

    /// Removes all but the logs: they say why it could not be built.
    pub fn fail(&self) {
        let logs = self.directory.join("logs");
        let aside = self.directory.with_extension("failed");
        std::fs::remove_dir_all(&aside).ok();
        let kept = std::fs::rename(&logs, &aside).is_ok();
        self.remove();
        if kept && std::fs::create_dir_all(&self.directory).is_ok() {
            std::fs::rename(&aside, &logs).ok();
        }
    }

    /// True where there is anything of this name.
    pub fn exists(&self) -> bool {
        self.directory.exists() || namespace_exists(&format!("{}-wan", self.tag()))
    }

    /// True while the record is whole and every namespace in it is there.
    fn is_up(&self) -> bool {
        self.load().is_ok_and(|record| record.lab.machines().all(|host| namespace_exists(&host.namespace)))
    }

    fn others(&self) -> Vec<String> {
        let root = self.directory.parent().unwrap_or(Path::new(ROOT));
        names(root).into_iter().filter(|name| *name != self.name).collect()
    }
}

/// Every laboratory, in alphabetical order.
pub fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join(FILE).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_label(name))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_one_needs_no_name() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Place::only(root.path()).unwrap_err().kind, Kind::NotRunning);
        let built = |name: &str| {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join(FILE), "{}").unwrap();
        };
        built("one");
        std::fs::create_dir(root.path().join("not-built")).unwrap();
        assert_eq!(Place::only(root.path()).unwrap().name(), "one");
        built("two");
        let trouble = Place::only(root.path()).unwrap_err();
        assert_eq!(trouble.to_string(), "2 laboratories are up: say --name: one, two");
    }

    #[test]
    fn what_is_not_up_is_said_and_an_alien_record_is_no_panic() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(root.path(), "one").unwrap();
        assert_eq!(place.load().unwrap_err().kind, Kind::NotRunning);
        std::fs::create_dir(place.directory()).unwrap();
        std::fs::write(place.directory().join(FILE), "{}").unwrap();
        assert_eq!(place.load().unwrap_err().kind, Kind::Other);
        assert!(Place::new(root.path(), "../etc").is_err());
    }
}
