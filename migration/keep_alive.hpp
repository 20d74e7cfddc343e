// KeepAlives: what tells a waiting peer, about once a second, that this side is busy and not gone.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "migration/message_stream.hpp"

namespace migration {

// While it lives, on a thread of its own. Where there is none to be had the peer waits without.
class KeepAlives {
  public:
    explicit KeepAlives(MessageStream& stream);
    ~KeepAlives();
    KeepAlives(const KeepAlives&) = delete;
    KeepAlives& operator=(const KeepAlives&) = delete;

  private:
    void send_them();

    MessageStream& stream_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool over_ = false;
    std::thread thread_;
};

}  // namespace migration
