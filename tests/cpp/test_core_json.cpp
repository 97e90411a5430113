#include <cmath>
#include <string>

#include "check.h"
#include "core/error.h"
#include "core/json.h"

using lewm::Error;
namespace json = lewm::json;

TEST(values) {
  const json::Value v = json::parse(R"( {"a": [1, -2.5e1, true, false, null], "b": {"c": "d"}, "e": [], "f": {}} )");
  const auto& a = *v.find("a")->array();
  CHECK_EQ(a.size(), 5u);
  CHECK_EQ(a[0].integer().value(), 1);
  CHECK_EQ(a[1].number().value(), -25.0);
  CHECK(!a[1].integer());
  CHECK(a[2].boolean().value() && !a[3].boolean().value());
  CHECK(a[4].kind() == json::Kind::null);
  CHECK_EQ(*v.find("b")->find("c")->string(), "d");
  CHECK(v.find("e")->array()->empty() && v.find("f")->object()->empty());
  CHECK(!v.find("g"));
  CHECK(!v.string() && !v.array() && !v.number() && !v.boolean());
}

TEST(numbers) {
  CHECK_EQ(json::parse("9223372036854775807").integer().value(), INT64_MAX);
  CHECK_EQ(json::parse("-9223372036854775808").integer().value(), INT64_MIN);
  CHECK(!json::parse("9223372036854775808").integer());
  CHECK_EQ(json::parse("9223372036854775808").number().value(), 0x1p63);
  CHECK_EQ(json::parse("-0").integer().value(), 0);
  CHECK_EQ(json::parse("0.1").number().value(), 0.1);
  CHECK_EQ(json::parse("1E+2").number().value(), 100.0);
  for (const char* bad : {"01", "1.", ".5", "+1", "1e", "-", "0x10", "NaN", "Infinity", "1e999"}) {
    CHECK_THROWS(json::parse(bad), Error, "JSON, byte ");
  }
}

TEST(strings) {
  CHECK_EQ(*json::parse(R"("\"\\\/\b\f\n\r\t")").string(), "\"\\/\b\f\n\r\t");
  CHECK_EQ(*json::parse(R"("\u0041\u00e9\u20ac\ud83d\ude00")").string(), "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK_EQ(*json::parse("\"\xc3\xa9\"").string(), "\xc3\xa9");
  CHECK_EQ(json::parse(R"("a\u0000b")").string()->size(), 3u);
  CHECK_THROWS(json::parse("\"a\nb\""), Error, "control character");
  CHECK_THROWS(json::parse(R"("\x41")"), Error, "escape");
  CHECK_THROWS(json::parse(R"("\u12g4")"), Error, "hexadecimal");
  CHECK_THROWS(json::parse(R"("\u12)"), Error, "hexadecimal");
  CHECK_THROWS(json::parse(R"("\ud83d")"), Error, "surrogate");
  CHECK_THROWS(json::parse(R"("\ud83dA")"), Error, "surrogate");
  CHECK_THROWS(json::parse(R"("\ude00")"), Error, "surrogate");
  CHECK_THROWS(json::parse("\"abc"), Error, "no end");
  CHECK_THROWS(json::parse("\"abc\\"), Error, "escape");
}

TEST(text_that_is_not_utf8) {
  for (const char* bad : {"\x80", "\xc3", "\xc3(", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf0\x80\x80\xaf",
                          "\xf4\x90\x80\x80", "\xff"}) {
    CHECK_THROWS(json::parse(std::string("\"") + bad + "\""), Error, "UTF-8");
  }
}

TEST(structure) {
  for (const char* bad : {"", " ", "{", "[", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[1,]", "[1 2]", "{a:1}", "nul",
                          "tru", "1 2", "{} x", "]", "{\"a\":1]", "'a'", "[1]//", "\xef\xbb\xbf{}"}) {
    CHECK_THROWS(json::parse(bad), Error, "JSON, byte ");
  }
  CHECK_THROWS(json::parse(R"({"a": 1, "b": 2, "a": 3})"), Error, "\"a\" twice");
  CHECK_THROWS(json::parse(R"({"a": 1, "\u0061": 3})"), Error, "\"a\" twice");
  CHECK_THROWS(json::parse("[1, x]"), Error, "byte 4");
  CHECK_THROWS(json::parse(std::string("1\0", 2)), Error, "byte 1");
}

TEST(nesting) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']');
  };
  CHECK(json::parse(nested(64)).array());
  CHECK_THROWS(json::parse(nested(66)), Error, "deeper than 64");
  CHECK_THROWS(json::parse(std::string(1000000, '[')), Error, "deeper than 64");
}

TEST(quoting_round_trips) {
  const std::string text("a\"\\\n\t\x01 \xc3\xa9", 10);
  CHECK_EQ(*json::parse(json::quote(text)).string(), text);
}

CHECK_MAIN
