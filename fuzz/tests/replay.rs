//! Replays the corpus of every target, whole, cut short at every byte, and with every byte disturbed.

use std::path::Path;

use frejus_fuzz::{TARGETS, samples};

#[test]
fn the_corpus_passes_whole_cut_and_disturbed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let files: Vec<_> = std::fs::read_dir(corpus.join(name))
            .unwrap_or_else(|error| panic!("no corpus for {name}: {error}"))
            .map(|entry| std::fs::read(entry.expect("a directory entry").path()).expect("a readable file"))
            .collect();
        assert!(!files.is_empty(), "{name} has no corpus");
        for bytes in files {
            target(&bytes);
            for at in 0..bytes.len() {
                target(&bytes[..at]);
                for flip in [1, 0x80, 0xff] {
                    let mut disturbed = bytes.clone();
                    disturbed[at] ^= flip;
                    target(&disturbed);
                }
            }
        }
    }
}

#[test]
fn every_sample_is_in_the_corpus_as_it_is_made_today() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, name, bytes) in samples::all() {
        let path = corpus.join(target).join(name);
        let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(kept == bytes, "the format of {target}/{name} changed: cargo run --bin seed");
    }
}

#[test]
fn an_altered_record_is_never_believed() {
    use frejus_overlay::id::RecordKey;
    use frejus_overlay::record::{Checked, Record, check};
    let (_, _, bytes) = samples::all()
        .into_iter()
        .find(|(target, name, _)| (*target, *name) == ("record", "whereabouts"))
        .expect("a sample");
    let Ok(Record::Whereabouts(contact)) = Record::decode(&bytes) else { panic!("the sample decodes") };
    let node = contact.whereabouts.claim().expect("a claim").node;
    let key = RecordKey::whereabouts(&samples::network().id, &node);
    assert!(matches!(check(samples::network(), &key, &bytes, samples::NOW), Ok(Checked::Place(_))));
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(check(samples::network(), &key, &altered, samples::NOW).is_err(), "byte {at}");
    }
}
