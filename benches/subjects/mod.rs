//! The hot functions, each made ready to be run many times: what the clock (`micro.rs`) and the instruction counter
//! (`instructions.rs`) both look at.
//!
//! Owns: the list, and the packets. Public interfaces only, and never a figure.

mod lookup;
mod packets;
mod tunnels;

/// One function with what it works on.
pub(crate) trait Subject {
    /// Makes ready for that many [`Self::run`]s; its cost is not counted.
    fn prepare(&mut self, _runs: usize) {}
    /// What is measured.
    fn run(&mut self);
}

/// A subject that needs no preparation between runs.
struct Plain<F>(F);

impl<F: FnMut()> Subject for Plain<F> {
    fn run(&mut self) {
        (self.0)();
    }
}

/// A subject's name, and how much it handles.
pub(crate) struct Entry {
    /// `function/variant`.
    pub(crate) name: String,
    /// Bytes that one run handles, for a throughput; 0 where that says nothing.
    #[allow(dead_code, reason = "the instruction counter has no throughput")]
    pub(crate) bytes: u64,
    /// Sets it up.
    pub(crate) make: Box<dyn Fn() -> Box<dyn Subject>>,
}

impl Entry {
    fn new<S: Subject + 'static>(name: String, bytes: usize, make: impl Fn() -> S + 'static) -> Self {
        Self { name, bytes: bytes as u64, make: Box::new(move || Box::new(make())) }
    }

    fn plain<F: FnMut() + 'static>(name: &str, bytes: usize, make: impl Fn() -> F + 'static) -> Self {
        Self::new(name.to_owned(), bytes, move || Plain(make()))
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Entry> {
    [tunnels::entries(), packets::entries(), lookup::entries()].into_iter().flatten().collect()
}
