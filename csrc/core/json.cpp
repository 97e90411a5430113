#include "core/json.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/error.h"

namespace lewm::json {
namespace {

constexpr int kMaxDepth = 64;

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3f));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

// Bytes of the well-formed UTF-8 sequence at the start of `text` (Unicode table 3-7), 0 when there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned lead = byte(0), second = byte(1);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return continues(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const bool overlong = lead == 0xe0 && second < 0xa0, surrogate = lead == 0xed && second > 0x9f;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const bool overlong = lead == 0xf0 && second < 0x90, beyond = lead == 0xf4 && second > 0x8f;
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

const char* kind_name(Kind kind) {
  constexpr const char* kNames[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
  return kNames[static_cast<int>(kind)];
}

std::optional<bool> Value::boolean() const { return kind_ == Kind::boolean ? std::optional(boolean_) : std::nullopt; }
std::optional<double> Value::number() const { return kind_ == Kind::number ? std::optional(number_) : std::nullopt; }
std::optional<std::int64_t> Value::integer() const { return integer_; }

const Value* Value::find(std::string_view name) const {
  for (const auto& [key, value] : members_) {
    if (key == name) return &value;
  }
  return nullptr;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value document() {
    Value value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) fail("expected the end of the text");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { fail_at(at_, what); }
  [[noreturn]] static void fail_at(std::size_t offset, const std::string& what) {
    throw Error(Status::bad_file, "JSON, byte " + std::to_string(offset) + ": " + what);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool accept(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail(std::string("expected '") + c + "'");
  }

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  Value parse_value(int depth) {
    if (depth > kMaxDepth) fail("nested deeper than " + std::to_string(kMaxDepth));
    skip_space();
    switch (peek()) {
      case '{':
        return parse_object(depth);
      case '[':
        return parse_array(depth);
      case '"':
        return parse_string_value();
      case 't':
        return parse_word("true", Kind::boolean, true);
      case 'f':
        return parse_word("false", Kind::boolean, false);
      case 'n':
        return parse_word("null", Kind::null, false);
      default:
        return parse_number();
    }
  }

  Value parse_word(std::string_view word, Kind kind, bool boolean) {
    if (text_.substr(at_, word.size()) != word) fail("expected a value");
    at_ += word.size();
    Value value;
    value.kind_ = kind;
    value.boolean_ = boolean;
    return value;
  }

  Value parse_object(int depth) {
    Value value;
    value.kind_ = Kind::object;
    expect('{');
    skip_space();
    if (accept('}')) return value;
    const std::size_t start = at_;
    do {
      skip_space();
      std::string name = parse_string();
      skip_space();
      expect(':');
      value.members_.emplace_back(std::move(name), parse_value(depth + 1));
      skip_space();
    } while (accept(','));
    expect('}');
    check_unique(value.members_, start);
    return value;
  }

  static void check_unique(const std::vector<Member>& members, std::size_t start) {
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const Member& member : members) names.push_back(member.first);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail_at(start, "the object has " + quote(*twice) + " twice");
  }

  Value parse_array(int depth) {
    Value value;
    value.kind_ = Kind::array;
    expect('[');
    skip_space();
    if (accept(']')) return value;
    do {
      value.elements_.push_back(parse_value(depth + 1));
      skip_space();
    } while (accept(','));
    expect(']');
    return value;
  }

  Value parse_string_value() {
    Value value;
    value.kind_ = Kind::string;
    value.text_ = parse_string();
    return value;
  }

  std::string parse_string() {
    expect('"');
    std::string out;
    for (;;) {
      if (at_ >= text_.size()) fail("the string has no end");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c == '\\') {
        ++at_;
        parse_escape(out);
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character inside a string");
      const std::size_t length = utf8_length(text_.substr(at_));
      if (length == 0) fail("not UTF-8");
      out.append(text_, at_, length);
      at_ += length;
    }
  }

  void parse_escape(std::string& out) {
    const char c = peek();
    constexpr std::string_view kFrom = "\"\\/bfnrt";
    constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    const std::size_t simple = at_ < text_.size() ? kFrom.find(c) : std::string_view::npos;
    if (simple != std::string_view::npos) {
      out += kTo[simple];
      ++at_;
      return;
    }
    if (!accept('u')) fail("unknown escape");
    std::uint32_t code = parse_hex4();
    if (code >= 0xd800 && code <= 0xdbff) {
      if (!accept('\\') || !accept('u')) fail("a high surrogate without its low one");
      const std::uint32_t low = parse_hex4();
      if (low < 0xdc00 || low > 0xdfff) fail("a high surrogate without its low one");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      fail("a low surrogate without its high one");
    }
    append_utf8(out, code);
  }

  std::uint32_t parse_hex4() {
    std::uint32_t code = 0;
    if (text_.size() - at_ < 4) fail("expected four hexadecimal digits");
    const char* first = text_.data() + at_;
    const auto [end, error] = std::from_chars(first, first + 4, code, 16);
    if (error != std::errc() || end != first + 4) fail("expected four hexadecimal digits");
    at_ += 4;
    return code;
  }

  void skip_digits() {
    if (!is_digit(peek())) fail("expected a digit");
    while (is_digit(peek())) ++at_;
  }

  Value parse_number() {
    const std::size_t start = at_;
    bool whole = true;
    const bool negative = accept('-');
    if (!negative && !is_digit(peek())) fail("expected a value");
    if (!accept('0')) skip_digits();
    if (accept('.')) {
      whole = false;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      whole = false;
      if (!accept('+')) accept('-');
      skip_digits();
    }
    const char* first = text_.data() + start;
    const char* last = text_.data() + at_;
    Value value;
    value.kind_ = Kind::number;
    if (std::from_chars(first, last, value.number_).ec != std::errc()) fail_at(start, "a number out of range");
    std::int64_t integer = 0;
    if (whole && std::from_chars(first, last, integer).ec == std::errc()) value.integer_ = integer;
    return value;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Value parse(std::string_view text) { return Parser(text).document(); }

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace lewm::json
