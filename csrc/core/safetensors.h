// A safetensors file: https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/tensors.h"

namespace lewm {

// A read-only mapping of a file whose header has been checked in full: sizes, JSON, names, dtypes, shapes and offsets.
// Views point into the mapping and die with this object. Somebody else truncating the file while it is mapped is
// fatal to the process (SIGBUS), so copy what is needed and close soon; replacing the file by rename does no harm.
class SafetensorsFile : public TensorSource {
 public:
  // Throws Error(file_not_found), or Error(bad_file) naming the file and, where there is one, the tensor.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile() override;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const TensorView* find(std::string_view name) const override;
  std::vector<std::string_view> names() const override;  // sorted
  void release(const TensorView& view) const override;   // gives the pages that it has to itself back to the system
  // The value of a __metadata__ key; null when there is none.
  const std::string* metadata(std::string_view key) const;
  const std::string& path() const { return path_; }

 private:
  void map_file();
  void read_header();
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace lewm
