#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz_targets::configuration(input));
