// ProgressLine: a migration on one line of a terminal, from its events.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tools {

class ProgressLine {
  public:
    // `enabled`: standard error is a terminal, and nobody else writes there.
    explicit ProgressLine(bool enabled) : enabled_(enabled) {}

    void show(const nlohmann::json& event);
    // Gives the line back, before anything else is printed.
    void clear();

    // What is shown now; for tests.
    const std::string& text() const { return text_; }

  private:
    void draw();

    bool enabled_;
    bool drawn_ = false;
    std::string text_;
    std::string phase_ = "connect";
    std::string round_ = "-";
    std::string sent_ = "-";
    std::string owed_ = "-";
    std::string rate_ = "-";
    std::string predicted_ = "-";
};

}  // namespace tools
