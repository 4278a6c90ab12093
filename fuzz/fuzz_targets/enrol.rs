//! Feeds [`frejus_fuzz::enrol`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::enrol(data));
