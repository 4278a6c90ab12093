//! A network of the product on a laboratory: one node founds it, the others join by codes that it is asked for.
//!
//! Knows the binary by its verbs and exit codes, as any script does. No code is in a process's arguments, and the
//! file that holds one is gone once it is used.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::extras::private;
use crate::host::Host;
use crate::lab::Lab;
use crate::service::Service;
use crate::topology::{NodePlan, Topology};
use crate::trouble::{Result, Trouble};

/// Beyond the patience of every verb that is called.
const VERB: Duration = Duration::from_secs(90);

/// How long a node may take to be ready.
const READY: &str = "30s";

/// A node that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its host, and its name in the network.
    pub host: String,
    /// Its state directory.
    pub state: PathBuf,
    /// Its process.
    pub service: Service,
    /// Why it was not ready when it was started.
    pub trouble: Option<String>,
}

impl Node {
    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }
}

/// Starts every node of a topology, the founder first; `say` hears a line for each.
///
/// A node that can't join or get ready does not stop the others: why not may be the question. It is in
/// [`Node::trouble`].
///
/// # Errors
/// The founder does not get ready.
pub fn start(
    topology: &Topology,
    lab: &Lab,
    binary: &Path,
    started: &mut Vec<Node>,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let Some(first) = topology.nodes.iter().find(|node| node.founder) else { return Ok(()) };
    let founder = Starter::new(lab, binary, first)?;
    founder.verb(&["create", &topology.network, "--name", &first.host])?;
    let node = founder.up()?;
    started.push(node);
    founder.ready()?;
    say(&format!("node {}: founded {}", first.host, topology.network));
    for plan in topology.nodes.iter().filter(|node| !node.founder) {
        let starter = Starter::new(lab, binary, plan)?;
        let joined = starter.join(&founder).and_then(|()| starter.up());
        let trouble = match joined {
            Ok(mut node) => {
                let trouble = starter.ready().err();
                node.trouble = trouble.as_ref().map(ToString::to_string);
                started.push(node);
                trouble
            }
            Err(trouble) => Some(trouble),
        };
        match trouble {
            None => say(&format!("node {}: joined, ready", plan.host)),
            Some(trouble) => say(&format!("node {}: NOT READY: {}", plan.host, trouble.what)),
        }
    }
    Ok(())
}

/// The environment of a program on a host: how it gets out, where that is by a proxy alone.
pub fn environment(lab: &Lab, host: &str) -> Vec<(String, String)> {
    let proxy = lab.router_of(host).ok().and_then(|router| router.proxy().map(str::to_owned));
    proxy
        .into_iter()
        .flat_map(|url| ["http_proxy", "https_proxy"].map(|key| (key.to_owned(), url.clone())))
        .collect()
}

/// One node on its way up.
struct Starter<'a> {
    plan: &'a NodePlan,
    host: Host,
    binary: String,
    state: PathBuf,
    environment: Vec<(String, String)>,
}

impl<'a> Starter<'a> {
    fn new(lab: &Lab, binary: &Path, plan: &'a NodePlan) -> Result<Self> {
        let host = lab.member(&plan.host)?.host.clone();
        let nodes = lab.scratch().join("nodes");
        std::fs::create_dir_all(&nodes).map_err(|error| Trouble::file(&nodes, error))?;
        let state = nodes.join(&plan.host);
        let environment = environment(lab, &plan.host);
        Ok(Self { plan, host, binary: binary.to_string_lossy().into_owned(), state, environment })
    }

    /// Runs a verb on the node's state to its end; gives standard output.
    fn verb(&self, argv: &[&str]) -> Result<String> {
        let state = self.state.to_string_lossy();
        // `env -u`: a socket that this shell points to is another node's.
        let mut words = vec!["env", "-u", "FREJUS_SOCKET"];
        words.push(&self.binary);
        words.extend_from_slice(argv);
        words.extend(["--state", &state]);
        let output = self.host.run_within(&words, "", VERB, &self.environment)?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        self.note(argv[0], &output.stderr)?;
        let line = output.stderr.lines().rev().find_map(|line| line.strip_prefix("frejus: "));
        let said = line.unwrap_or_else(|| output.stderr.lines().last().unwrap_or("no word"));
        let what = format!("frejus {} on {}: exit {}, {said}", argv[0], self.plan.host, output.code);
        Err(Trouble::other(what, format!("see {}", self.log().display())))
    }

    fn join(&self, founder: &Starter<'_>) -> Result<()> {
        let name = &self.plan.host;
        let code = founder.verb(&["invite", "--name", name, "--role", self.plan.role.word()])?;
        let file = self.state.with_extension("code");
        private(&file, code.trim())?;
        let joined = self.verb(&["join", &format!("@{}", file.display())]);
        std::fs::remove_file(&file).map_err(|error| Trouble::file(&file, error))?;
        joined.map(drop)
    }

    /// The node's process, in a session of its own.
    fn up(&self) -> Result<Node> {
        let state = self.state.to_string_lossy();
        let mut argv = vec![self.binary.as_str(), "up", "--background", "--state", &state];
        argv.extend(self.plan.options.iter().map(String::as_str));
        let service = Service::start(&self.host, "frejus", &argv, &self.environment)?;
        Ok(Node { host: self.plan.host.clone(), state: self.state.clone(), service, trouble: None })
    }

    fn ready(&self) -> Result<()> {
        self.verb(&["wait", "--timeout", READY]).map(drop)
    }

    /// What a verb said that failed stands in the log too: there may be no other word of this node.
    fn note(&self, verb: &str, said: &str) -> Result<()> {
        let log = self.log();
        let write = || {
            std::fs::create_dir_all(log.parent().unwrap_or(&log))?;
            let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
            write!(log, "frejus {verb} failed:\n{said}")
        };
        write().map_err(|error| Trouble::file(&log, error))
    }

    fn log(&self) -> PathBuf {
        self.host.scratch.join("logs").join(format!("{}-frejus.log", self.plan.host))
    }
}
