//! Feeds [`frejus_fuzz::part`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::part(data));
