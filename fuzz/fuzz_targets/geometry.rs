//! Any bytes as a call of any geometry function: an answer or an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let error = twinlake_spatial::fuzzing::exercise(data).unwrap_or_default();
    assert!(!error.contains("a defect"), "{error}");
});
