// A small strict JSON reader (RFC 8259) for file headers and metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lewm::json {

enum class Kind { null, boolean, number, string, array, object };

const char* kind_name(Kind kind);

class Value;
using Member = std::pair<std::string, Value>;

class Value {
 public:
  Kind kind() const { return kind_; }

  // Each is empty or null when the value is of another kind.
  std::optional<bool> boolean() const;
  std::optional<double> number() const;
  std::optional<std::int64_t> integer() const;  // a number written without fraction or exponent that fits
  const std::string* string() const { return kind_ == Kind::string ? &text_ : nullptr; }
  const std::vector<Value>* array() const { return kind_ == Kind::array ? &elements_ : nullptr; }
  const std::vector<Member>* object() const { return kind_ == Kind::object ? &members_ : nullptr; }

  // The member of an object; null when there is none or this is no object.
  const Value* find(std::string_view name) const;

 private:
  friend class Parser;
  Kind kind_ = Kind::null;
  bool boolean_ = false;
  double number_ = 0;
  std::optional<std::int64_t> integer_;
  std::string text_;
  std::vector<Value> elements_;
  std::vector<Member> members_;  // in the order of the text
};

// Parses one value with nothing but white space around it. Refuses what the grammar does not have, names that an object
// holds twice, text that is not UTF-8, numbers beyond double's range, and nesting deeper than 64.
// Throws Error(bad_file): "JSON, byte 17: expected ...".
Value parse(std::string_view text);

// The text as a JSON string, quotes included.
std::string quote(std::string_view text);

}  // namespace lewm::json
