// Every way in which a safetensors header can lie ends in an error that names file and tensor.
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "check.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "safetensors_support.h"

using lewm::Error;
using lewm::SafetensorsFile;
using lewm::Status;
using namespace safetensors_test;

namespace {

Status status_of(const std::string& path) {
  try {
    SafetensorsFile file(path);
  } catch (const Error& e) {
    return e.status();
  }
  return Status::ok;
}

// Opening these bytes fails as bad_file, with the path and `part` in the message.
void refuse(const std::string& contents, const std::string& part) {
  const TemporaryFile file(contents);
  try {
    SafetensorsFile opened(file.path());
  } catch (const Error& e) {
    const std::string message = e.what();
    CHECK(e.status() == Status::bad_file);
    if (message.find(file.path()) == std::string::npos || message.find(part) == std::string::npos) {
      check::fail(__FILE__, __LINE__, "expected \"" + part + "\" in: " + message);
    }
    return;
  }
  check::fail(__FILE__, __LINE__, "opened, expected: " + part);
}

// One tensor "a" with this entry, and 8 bytes of data.
void refuse_entry(const std::string& entry, const std::string& part) {
  refuse(file_of("{\"a\": " + entry + "}", "01234567"), part);
}

const std::string kTwo =
    R"({"b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "a": {"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]}})";

}  // namespace

TEST(reads_tensors_and_metadata) {
  const float value = 1.5f;
  std::string data("\x01\x02\x03\x04", 4);
  data.append(reinterpret_cast<const char*>(&value), 4);
  std::string header = kTwo;
  header.insert(1,
                R"("__metadata__": {"k": "v"}, "empty": {"dtype": "F16", "shape": [0, 5], "data_offsets": [8, 8]}, )");
  const TemporaryFile temporary(file_of(header + "   ", data));  // padded with spaces, as writers do
  const SafetensorsFile file(temporary.path());
  CHECK((file.names() == std::vector<std::string_view>{"a", "b", "empty"}));
  CHECK(file.find("a")->dtype == lewm::DType::i8);
  CHECK((file.find("a")->shape == std::vector<std::int64_t>{2, 2}));
  char bytes[4];
  file.read("a", 0, bytes, 4);
  CHECK_EQ(std::memcmp(bytes, "\x01\x02\x03\x04", 4), 0);
  file.read("a", 2, bytes, 2);
  CHECK_EQ(std::memcmp(bytes, "\x03\x04", 2), 0);
  file.read("b", 0, bytes, 4);
  CHECK_EQ(std::memcmp(bytes, &value, 4), 0);
  CHECK((file.find("empty")->shape == std::vector<std::int64_t>{0, 5}));
  CHECK(!file.find("c"));
  CHECK_EQ(*file.metadata("k"), "v");
  CHECK(!file.metadata("a"));
}

TEST(dtypes) {
  for (const auto& [name, bytes] : {std::pair{"F64", 8},
                                    {"F32", 4},
                                    {"F16", 2},
                                    {"BF16", 2},
                                    {"I64", 8},
                                    {"I32", 4},
                                    {"I16", 2},
                                    {"I8", 1},
                                    {"U8", 1},
                                    {"BOOL", 1}}) {
    const std::string size = std::to_string(bytes);
    const TemporaryFile temporary(
        file_of(R"({"a": {"dtype": ")" + std::string(name) + R"(", "shape": [], "data_offsets": [0, )" + size + "]}}",
                std::string(static_cast<std::size_t>(bytes), 0)));
    CHECK(SafetensorsFile(temporary.path()).find("a") != nullptr);
  }
}

TEST(no_such_file) {
  CHECK(status_of("/no/such/folder/file") == Status::file_not_found);
  const TemporaryFile file(file_of("{}", ""));
  CHECK(status_of(file.path()) == Status::ok);
  CHECK(status_of(file.path() + "x") == Status::file_not_found);
  CHECK(status_of(file.path() + "/x") == Status::file_not_found);
  CHECK_THROWS(SafetensorsFile("/"), Error, "directory");
  CHECK_THROWS(SafetensorsFile("/dev/null"), Error, "regular file");
}

TEST(header_length) {
  refuse("", "got 0 bytes");
  refuse("1234567", "got 7 bytes");
  refuse(length_bytes(0), "'{'");
  refuse(length_bytes(3) + "{}", "the header claims 3 bytes of a file of 10");
  refuse(length_bytes(~std::uint64_t{0}) + "{}", "18446744073709551615");
  refuse(length_bytes(100'000'001) + "{}", "100000001");
}

TEST(header_text) {
  refuse(file_of(" {}", ""), "'{'");
  refuse(file_of("[]", ""), "'{'");
  refuse(file_of("{", ""), "header: JSON, byte 1");
  refuse(file_of("{} x", ""), "JSON, byte 3");
  refuse(file_of("{\"a\xff\": 1}", ""), "UTF-8");
  refuse(file_of(R"({"a": {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}, "a": 1})", ""), "\"a\" twice");
  refuse(file_of(R"({"__metadata__": 1})", ""), "__metadata__: expected an object");
  refuse(file_of(R"({"__metadata__": {"k": 1}})", ""), "__metadata__: \"k\": expected a string");
}

TEST(entries) {
  refuse_entry("1", "tensor \"a\": expected an object, got a number");
  refuse_entry(R"({"shape": [2], "data_offsets": [0, 8]})", "tensor \"a\": dtype");
  refuse_entry(R"({"dtype": "F33", "shape": [2], "data_offsets": [0, 8]})", "got \"F33\"");
  refuse_entry(R"({"dtype": "F32", "data_offsets": [0, 8]})", "tensor \"a\": shape: expected an array");
  refuse_entry(R"({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]})", "shape");
  refuse_entry(R"({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]})", "shape: expected integers");
  refuse_entry(R"({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]})", "shape: expected integers of at least 0");
  refuse_entry(R"({"dtype": "F32", "shape": [9223372036854775807, 9], "data_offsets": [0, 8]})", "too many elements");
  refuse_entry(R"({"dtype": "F32", "shape": [4611686018427387905], "data_offsets": [0, 4]})", "too many elements");
  refuse_entry(R"({"dtype": "F32", "shape": [2]})", "data_offsets: expected an array");
  refuse_entry(R"({"dtype": "F32", "shape": [2], "data_offsets": [0]})", "data_offsets: expected [begin, end]");
  refuse_entry(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]})", "data_offsets: expected [begin, end]");
  refuse_entry(R"({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]})", "[8, 0] ends before it begins");
  refuse_entry(R"({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]})", "reaches beyond the 8 bytes of data");
  refuse_entry(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 9223372036854775808]})", "data_offsets");
  refuse_entry(R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]})",
               "expected 4 bytes for its shape and dtype, got 8");
  refuse_entry(R"({"dtype": "F64", "shape": [], "data_offsets": [0, 4]})", "expected 8 bytes");
}

TEST(layout_of_the_data) {
  refuse(file_of(kTwo, "0123456"), "beyond the 7 bytes");  // truncated
  refuse(file_of(kTwo, "012345678"), "expected 8 bytes of data, got 9");
  refuse(file_of("{}", "0"), "expected 0 bytes of data, got 1");
  const auto two = [](const std::string& second) {
    return file_of(R"({"a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}, "b": )" + second + "}", "01234567");
  };
  refuse(two(R"({"dtype": "I8", "shape": [6], "data_offsets": [2, 8]})"),
         "tensor \"b\": data_offsets: begins at 2, inside");
  refuse(two(R"({"dtype": "I8", "shape": [3], "data_offsets": [5, 8]})"),
         "tensor \"b\": data_offsets: begins at 5, after a hole");
  refuse(two(R"({"dtype": "I8", "shape": [4], "data_offsets": [0, 4]})"), "inside another tensor");
}

// What happens to a file while it is being read is an error, never other numbers and never a signal.
TEST(a_file_that_changes_while_it_is_read) {
  const std::string contents = file_of(kTwo, "01234567");
  char bytes[4];
  {
    const TemporaryFile temporary(contents);
    const SafetensorsFile file(temporary.path());
    file.check_unchanged();
    std::filesystem::resize_file(temporary.path(), contents.size() - 2);
    file.read("a", 0, bytes, 4);  // what is left of it
    CHECK_THROWS(file.read("b", 0, bytes, 4), Error, "truncated while it was being read");
    CHECK_THROWS(file.check_unchanged(), Error, "changed while it was being read");
  }
  {
    const TemporaryFile temporary(contents);
    const SafetensorsFile file(temporary.path());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // coarser than the clock of any file system here
    std::fstream(temporary.path(), std::ios::in | std::ios::out).seekp(-1, std::ios::end).put('8');
    CHECK_THROWS(file.check_unchanged(), Error, "changed while it was being read");
  }
  {
    const TemporaryFile temporary(contents), other(file_of("{}", ""));
    const SafetensorsFile file(temporary.path());
    std::filesystem::rename(other.path(), temporary.path());
    file.read("b", 0, bytes, 4);
    CHECK_EQ(std::memcmp(bytes, "4567", 4), 0);
    file.check_unchanged();
  }
}

CHECK_MAIN
