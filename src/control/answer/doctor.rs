//! The report of `doctor`.

use frejus_overlay::doctor::Side;
use frejus_overlay::node::Examination;

use super::path;
use crate::control::{nat_class, port_mapping};
use crate::report::SCHEMA;
use crate::report::doctor as report;

pub(super) fn report(view: Examination) -> report::Doctor {
    let Examination { name, peer, path, here, there, diagnosis } = view;
    report::Doctor {
        schema: SCHEMA,
        here: side(name, here),
        there: there.map(|there| side(peer.clone(), there)),
        peer,
        path: path.map(self::path),
        why: diagnosis.why,
        mend: diagnosis.mend,
    }
}

fn side(name: String, side: Side) -> report::Side {
    let tried = |tried: &frejus_overlay::doctor::Tried| report::Tried {
        at: tried.at,
        sent: tried.sent,
        answered: tried.answered,
        heard: tried.heard,
    };
    report::Side {
        name,
        class: nat_class(side.class),
        external: side.external,
        port_mapping: side.mapped.map(port_mapping),
        udp: side.udp,
        candidates: side.tried.iter().map(tried).collect(),
    }
}
