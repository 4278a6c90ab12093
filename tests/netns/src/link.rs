//! Links with delay and loss, as the laboratory has them.

pub use frejus_lab::link::Quality;
