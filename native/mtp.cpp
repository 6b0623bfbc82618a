// Multi-token prediction: a block that takes a token's embedding and what the decoder had made of the token before it,
// and says the token after; see src/smallpress/model/mtp.py. Its keys and values lie beside the layers'.

#include "model.h"

namespace smallpress {

void Model::keep_hidden(const Buffer<float>& norm, int64_t N) {
    if (!config_.n_modules) return;
    n_hidden_ = N;
    hidden_.reserve(N * config_.dim);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t at = begin * config_.dim; at < end * config_.dim; at += config_.dim)
            k_.rms_norm(x_.get() + at, norm.get(), config_.dim, config_.norm_eps, hidden_.get() + at);
    });
}

// The stream of a module, from the embeddings that stand in its place.
void Model::project(const Layer& module, const float* before, int64_t N) {
    const int64_t dim = config_.dim;
    pairs_.reserve(N * 2 * dim);
    act_.reserve(N, 2 * dim);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            float *pair = pairs_.get() + n * 2 * dim, *second = pair + dim;
            k_.rms_norm(x_.get() + n * dim, module.embed_norm.get(), dim, config_.norm_eps,
                        config_.hidden_first ? second : pair);
            k_.rms_norm(before + n * dim, module.hidden_norm.get(), dim, config_.norm_eps,
                        config_.hidden_first ? pair : second);
            take(pair, 2 * dim, act_, n);
        }
    });
    product({{&module.proj}}, N, x_.get(), dim, Store::SET);
}

void Model::predict(int64_t k, const Rows& rows, const float* before, const int64_t* logit_rows, int64_t n_logit_rows) {
    require_weights();
    const int64_t index = config_.n_layers() + k;
    act_.meets = gathered_.meets = in_layers_;
    choose_adapters(nullptr, rows.N);  // a module drafts for the model as it is
    embed(rows);
    project(layers_[index], before, rows.N);
    run_block(index, rows, runs(rows));
    keep_hidden(layers_[index].norm, rows.N);
    if (n_logit_rows) make_logits(layers_[index].norm, logit_rows, n_logit_rows);
}

}  // namespace smallpress
