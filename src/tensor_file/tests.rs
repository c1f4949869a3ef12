use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn write_sample(dir: &std::path::Path, float_type: FloatType) -> PathBuf {
    let path = dir.join("sample.safetensors");
    let tensors = vec![(TensorSpec::new("a", &[2, 3]), float_type), (TensorSpec::new("b", &[1]), float_type)];
    let mut writer = SafetensorsWriter::create(&path, tensors).unwrap();
    writer.write("a", &[0.0, 1.0, -2.0, 0.5, 3.0, -0.25]).unwrap();
    writer.write("b", &[7.0]).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn what_is_written_is_read_back_in_each_type() {
    let dir = tempfile::tempdir().unwrap();
    for float_type in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
        let file = SafetensorsFile::open(&write_sample(dir.path(), float_type)).unwrap();
        assert_eq!(file.read_f32("a", &[2, 3]).unwrap(), [0.0, 1.0, -2.0, 0.5, 3.0, -0.25]);
        assert_eq!(file.read_f32("b", &[1]).unwrap(), [7.0]);
        assert_eq!(file.metadata()["format"], "pt");
    }
}

#[test]
fn the_safetensors_crate_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(write_sample(dir.path(), FloatType::F32)).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(parsed.tensor("a").unwrap().shape(), [2, 3]);
}

#[test]
fn wrong_requests_name_file_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let file = SafetensorsFile::open(&write_sample(dir.path(), FloatType::F32)).unwrap();
    let missing = file.read_f32("c", &[1]).unwrap_err().to_string();
    assert!(missing.contains("sample.safetensors has no tensor c"), "{missing}");
    let shape = file.read_f32("a", &[3, 2]).unwrap_err().to_string();
    assert!(shape.contains("tensor a is [2, 3], expected [3, 2]"), "{shape}");
}

fn with_header(dir: &std::path::Path, header: &str, data: usize) -> String {
    let path = dir.join("broken.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    std::fs::write(&path, bytes).unwrap();
    SafetensorsFile::open(&path).unwrap_err().to_string()
}

#[test]
fn damaged_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |shape: &str, from: usize, to: usize| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let garbage = with_header(dir.path(), "not json", 0);
    assert!(garbage.contains("the header is not valid"), "{garbage}");
    let overlap = format!(r#"{{"a":{},"b":{}}}"#, entry("[2]", 0, 8), entry("[2]", 4, 12));
    assert!(with_header(dir.path(), &overlap, 12).contains("offset for tensor `b`"));
    let size = format!(r#"{{"a":{}}}"#, entry("[3]", 0, 8));
    assert!(with_header(dir.path(), &size, 8).contains("invalid shape"));
    let overflow = format!(r#"{{"a":{}}}"#, entry("[4294967296,4294967296,16]", 0, 8));
    assert!(with_header(dir.path(), &overflow, 8).contains("overflow"));
    let longer = format!(r#"{{"a":{}}}"#, entry("[2]", 0, 8));
    assert!(with_header(dir.path(), &longer, 9).contains("the file holds 9"));
    let backwards = format!(r#"{{"a":{}}}"#, entry("[2]", 8, 0));
    assert!(with_header(dir.path(), &backwards, 8).contains("offset for tensor `a`"));
}

#[test]
fn a_type_without_weights_is_refused_only_when_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ints.safetensors");
    let header = r#"{"a":{"dtype":"I8","shape":[8],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 8]);
    std::fs::write(&path, bytes).unwrap();
    let error = SafetensorsFile::open(&path).unwrap().read_f32("a", &[8]).unwrap_err();
    assert!(error.to_string().contains("is I8, expected F32"), "{error}");
}

#[test]
fn tensors_must_be_written_in_order_and_all() {
    let dir = tempfile::tempdir().unwrap();
    let tensors =
        || vec![(TensorSpec::new("a", &[1]), FloatType::F32), (TensorSpec::new("b", &[1]), FloatType::F32)];
    let path = dir.path().join("x.safetensors");
    let mut writer = SafetensorsWriter::create(&path, tensors()).unwrap();
    assert!(writer.write("b", &[1.0]).is_err());
    let mut writer = SafetensorsWriter::create(&path, tensors()).unwrap();
    writer.write("a", &[1.0]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("b was never written"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_cut_or_garbled_anywhere_never_panics(cut in 0_usize..400, flip in 0_usize..400, byte: u8) {
        let dir = tempfile::tempdir().unwrap();
        let path = write_sample(dir.path(), FloatType::F32);
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        if let Some(target) = bytes.get_mut(flip) {
            *target = byte;
        }
        bytes.truncate(cut);
        std::fs::write(&path, &bytes).unwrap();
        let opened = SafetensorsFile::open(&path);
        prop_assert!(cut >= whole || opened.is_err());
    }

    #[test]
    fn f32_values_keep_their_bits(values in proptest::collection::vec(any::<f32>(), 1..200)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bits.safetensors");
        let spec = TensorSpec::new("x", &[values.len()]);
        let mut writer = SafetensorsWriter::create(&path, vec![(spec, FloatType::F32)]).unwrap();
        writer.write("x", &values).unwrap();
        writer.finish().unwrap();
        let read = SafetensorsFile::open(&path).unwrap().read_f32("x", &[values.len()]).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read), bits(&values));
    }
}
