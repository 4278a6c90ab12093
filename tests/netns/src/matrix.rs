//! Every pair of NAT classes, in both directions of the first packet: run, written down, and told.
//!
//! | file | owns |
//! | --- | --- |
//! | `record` | what a run found, as a line of JSON; the simulator writes the same |
//! | `drive` | one run on the kernel |
//! | `tally` | many runs of one cell, and what both worlds say of it |
//! | `report` | the page |

pub mod drive;
pub mod record;
pub mod report;
pub mod tally;
