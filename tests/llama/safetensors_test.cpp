#include "safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "file_bytes.h"
#include "pagedkv/error.h"

namespace llama {
namespace {

using pagedkv::Error;
using pagedkv::ErrorCode;
using test::bytes_of;
using test::data_of;
using test::file_of;
using testing::ElementsAre;
using testing::HasSubstr;

/// The message of the Error that parsing gives.
std::string complaint(const std::string& file) {
  try {
    const TensorTable table(bytes_of(file), "f");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    return error.what();
  }
  return "accepted";
}

TEST(Safetensors, ReadsEveryType) {
  // 1.5 and -2 in each float type, bit by bit.
  const std::string data = data_of<float>({1.5F, -2.0F}) + data_of<double>({1.5, -2.0}) +
                           data_of<std::uint16_t>({0x3e00, 0xc000}) + data_of<std::uint16_t>({0x3fc0, 0xc000}) +
                           data_of<std::int32_t>({7, -8}) + "hi";
  const std::string file = file_of(R"({
    "f32": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
    "f64": {"dtype": "F64", "shape": [2], "data_offsets": [8, 24]},
    "f16": {"dtype": "F16", "shape": [2], "data_offsets": [24, 28]},
    "bf16": {"dtype": "BF16", "shape": [2], "data_offsets": [28, 32]},
    "i32": {"dtype": "I32", "shape": [2], "data_offsets": [32, 40]},
    "u8": {"dtype": "U8", "shape": [2], "data_offsets": [40, 42]},
    "__metadata__": {"about": "test"}})",
                                   data);
  const TensorTable table(bytes_of(file), "f");
  EXPECT_THAT(table.floats("f32", {1, 2}), ElementsAre(1.5F, -2.0F));
  EXPECT_THAT(table.doubles("f64", {2}), ElementsAre(1.5, -2.0));
  EXPECT_THAT(table.floats("f16", {2}), ElementsAre(1.5F, -2.0F));
  EXPECT_THAT(table.floats("bf16", {2}), ElementsAre(1.5F, -2.0F));
  EXPECT_THAT(table.ints("i32"), ElementsAre(7, -8));
  EXPECT_EQ(table.text("u8"), "hi");
  EXPECT_EQ(table.metadata().at("about"), "test");
  EXPECT_FALSE(table.contains("__metadata__"));
}

TEST(Safetensors, ReadsEmptyAndScalarTensors) {
  const std::string file = file_of(R"({"none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]},
                                       "one": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}})",
                                   data_of<float>({3.0F}));
  const TensorTable table(bytes_of(file), "f");
  EXPECT_TRUE(table.floats("none", {0, 3}).empty());
  EXPECT_THAT(table.floats("one", {}), ElementsAre(3.0F));
}

TEST(Safetensors, RefusesBrokenFiles) {
  const auto with = [](const std::string& tensor) { return file_of(R"({"t": )" + tensor + "}", "01234567"); };
  EXPECT_THAT(complaint(""), HasSubstr("0 bytes"));
  EXPECT_THAT(complaint("1234567"), HasSubstr("7 bytes"));
  EXPECT_THAT(complaint(std::string(8, '\xff')), HasSubstr("header length"));
  EXPECT_THAT(complaint(file_of("{}", "").substr(0, 9)), HasSubstr("header length = 2"));
  EXPECT_THAT(complaint(file_of("", "")), HasSubstr("JSON object"));
  EXPECT_THAT(complaint(file_of("{", "")), HasSubstr("JSON object"));
  EXPECT_THAT(complaint(file_of("[]", "")), HasSubstr("JSON object"));
  EXPECT_THAT(complaint(file_of(R"({"__metadata__": 1})", "")), HasSubstr("object of strings"));
  EXPECT_THAT(complaint(file_of(R"({"__metadata__": {"a": 1}})", "")), HasSubstr("__metadata__.a"));
  EXPECT_THAT(complaint(with("1")), HasSubstr("dtype, shape, data_offsets"));
  EXPECT_THAT(complaint(with("{}")), HasSubstr("t.dtype"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F31", "shape": [2], "data_offsets": [0, 8]})")), HasSubstr("F31"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F32", "data_offsets": [0, 8]})")), HasSubstr("t.shape"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]})")), HasSubstr("-2"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]})")), HasSubstr("t.shape"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F32", "shape": [2]})")), HasSubstr("t.data_offsets"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]})")),
              HasSubstr("t.data_offsets"));
  EXPECT_THAT(complaint(with(R"({"dtype": "F32", "shape": [2], "data_offsets": ["0", 8]})")),
              HasSubstr("t.data_offsets"));
}

TEST(Safetensors, RefusesTensorsOutsideTheFile) {
  const auto with = [](const std::string& shape, const std::string& offsets) {
    return complaint(
        file_of(R"({"t": {"dtype": "F32", "shape": )" + shape + R"(, "data_offsets": )" + offsets + "}}", "01234567"));
  };
  EXPECT_EQ(with("[2]", "[0, 8]"), "accepted");
  EXPECT_THAT(with("[2]", "[0, 9]"), HasSubstr("data_offsets = [0,9]"));
  EXPECT_THAT(with("[2]", "[4, 12]"), HasSubstr("inside the file"));
  EXPECT_THAT(with("[2]", "[8, 0]"), HasSubstr("inside the file"));
  EXPECT_THAT(with("[1]", "[0, 8]"), HasSubstr("as far apart"));
  EXPECT_THAT(with("[18446744073709551615]", "[0, 8]"), HasSubstr("sizes from 0"));
  EXPECT_THAT(with("[2]", "[0, 18446744073709551615]"), HasSubstr("data_offsets"));
  // Sizes whose product wraps around to 8 bytes.
  EXPECT_THAT(with("[4611686018427387904, 4, 2]", "[0, 8]"), HasSubstr("below 2^63"));
  EXPECT_THAT(with("[4611686018427387906]", "[0, 8]"), HasSubstr("below 2^63"));
}

TEST(Safetensors, AccessorsNameWhatIsWrong) {
  const std::string file =
      file_of(R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", data_of<float>({1.0F, 2.0F}));
  const TensorTable table(bytes_of(file), "f");
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(message([&] { table.floats("missing", {2}); }), HasSubstr("no tensor missing"));
  EXPECT_THAT(message([&] { table.floats("t", {2, 1}); }), HasSubstr("t.shape = [2]; accepted: [2,1]"));
  EXPECT_THAT(message([&] { table.ints("t"); }), HasSubstr("t.dtype = F32; accepted: I32"));
  EXPECT_THAT(message([&] { table.doubles("t", {2}); }), HasSubstr("accepted: F64"));
  EXPECT_THAT(message([&] { table.text("t"); }), HasSubstr("accepted: U8"));
}

TEST(Safetensors, MapsFiles) {
  const std::string path = testing::TempDir() + "pagedkv_safetensors_test";
  std::ofstream(path, std::ios::binary) << file_of(R"({"t": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}})",
                                                   data_of<std::int32_t>({42}));
  EXPECT_THAT(TensorFile(path)->ints("t"), ElementsAre(42));
  std::ofstream(path, std::ios::trunc).flush();
  EXPECT_THROW(TensorFile{path}, Error);
  std::filesystem::remove(path);
  EXPECT_THROW(TensorFile{path}, Error);
  EXPECT_THROW(TensorFile{testing::TempDir()}, Error);  // a folder
}

TEST(Safetensors, FuzzCorpusGivesErrorsOnly) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PAGEDKV_FUZZ_CORPUS "/safetensors")) {
    ++files;
    try {
      const TensorFile file(entry.path().string());
    } catch (const Error&) {
    }
  }
  EXPECT_GT(files, 0);
}

}  // namespace
}  // namespace llama
