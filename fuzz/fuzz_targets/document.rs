//! Feeds [`frejus_fuzz::document`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::document(data));
