"use strict";
// The page's own words in Chinese. A number is #; what is not here, such as whatever comes from a run, stays as it is.
const CHINESE = {
  // Numbers, and what is counted
  "# s": "# 秒", "# min # s": "# 分 # 秒", "# h # min": "# 小时 # 分", "# B": "# 字节", "# rows/s": "# 行/秒",
  "# client": "# 个客户端", "# clients": "# 个客户端", "# server": "# 个服务器", "# servers": "# 个服务器", "# epoch": "# 个 epoch", "# epochs": "# 个 epoch",
  "# of # epochs": "#/# 个 epoch", "# of # epoch": "#/# 个 epoch", "# in epoch #": "#（epoch #）", "# an exchange": "每次交换 #",
  "# running": "# 个运行中", "# starting": "# 个启动中", "# done": "# 个已完成", "# failed": "# 个失败", "# not there yet": "# 个尚未出现",
  "# joined": "# 个参与", "# waited": "# 个等待", "# finished": "# 个结束", "# did not report in time": "# 个未及时报告",
  "# to #": "# 到 #", "# or more": "# 及以上", "# to # training items": "# 到 # 个训练物品", "# or more training items": "# 个及以上训练物品",
  "# vs popularity": "# 与流行度相比", "# %, all together # %": "# %，总体 # %", "# bits": "# 位", "# bits, # % pruned": "# 位，剪枝 # %", "# % pruned": "剪枝 # %",
  // States
  done: "完成", failed: "失败", interrupted: "已中断", killed: "被终止", training: "训练", running: "运行中", starting: "启动中", missing: "缺席", "not there yet": "尚未出现", "not asked": "未询问", waiting: "等待",
  // At the top
  "coordinator": "协调器", "coordinator with ": "协调器，策略 ", "took ": "用时 ", "HR@# is ": "HR@# 为 ", " after # epoch": "，经过 # 个 epoch", " after # epochs": "，经过 # 个 epoch",
  " (chosen by the validation shards)": "（由验证分片选出）", ". The data does not say what ranking by popularity would reach.": "。数据没有说明按流行度排序能达到多少。",
  ", ": "，", "# above": "高出 #", "# below": "低 #", " ranking by popularity (": "，相比按流行度排序（", ").": "）。",
  " A list of what most people take would do as well or better: train longer, or see the documentation on ranking quality.": "列出大多数人选择的物品也一样好或更好：请训练更久，或参阅文档的“排序质量”。",
  "Nothing has been trained yet: its figures come with the first epoch.": "尚未训练：第一个 epoch 之后才有指标。", "No epoch was finished.": "没有一个 epoch 完成。",
  "of the test users": "测试用户中", "of all test rows": "全部测试行", "Test AUC": "测试 AUC", "Training AUC": "训练 AUC", "Training loss": "训练损失", "Epsilon spent": "已用 ε",
  "Validation HR@#": "验证 HR@#", "Validation NDCG@#": "验证 NDCG@#", "Worst-served shard": "服务最差的分片", "An epoch takes": "每个 epoch 用时",
  // While it trains, and failures
  "Now": "现在", "Starting": "启动中", "Epoch # of #": "第 # 个 epoch，共 # 个", "It was interrupted": "它被中断了", "What went wrong": "出了什么问题", "the job": "任务", "The end of its log, ": "其日志的末尾，",
  "It ended after # whole epoch.": "在 # 个完整 epoch 之后结束。", "It ended after # whole epochs.": "在 # 个完整 epoch 之后结束。",
  "Live: it follows the job without a reload.": "实时：无需刷新即跟随任务。", "The job has ended. To keep this page: fl-rec report": "任务已结束。保存本页：fl-rec report",
  "The job gives no answer any more: it has ended. To see all of it: fl-rec report": "任务不再应答：它已结束。查看全部：fl-rec report",
  "Written by fl_rec. This page needs no network.": "由 fl_rec 生成。本页无需网络。",
  // Learning
  "Learning": "学习过程", "all clients": "全部客户端", "each client": "每个客户端", "the one looked at": "正在查看的", "ranking by popularity": "按流行度排序", "popularity": "流行度", "popularity #": "流行度 #", "epoch #": "epoch #", "together": "合计",
  "Each thin line is a client, measured on its own test users; the thick one is all of them together. Point at a line to follow a client through every chart, or pick one.": "每条细线是一个客户端，用它自己的测试用户衡量；粗线是全部合计。指向一条线可在所有图中跟随该客户端，也可以选定一个。",
  "The figures of every epoch": "每个 epoch 的指标", "whose figures": "谁的指标", "rows": "行数", "seconds": "秒",
  // Clients
  "Clients": "客户端", "client": "客户端", "clients": "客户端", "training rows": "训练行数", "users": "用户", "items in common": "共同物品", "taste apart": "口味差异", "s an epoch": "秒/epoch",
  "How much each holds, how far its taste is from the others', and how well the model serves its users.": "各自持有多少数据，口味与其他客户端相差多远，以及模型对其用户的服务有多好。",
  "Worst-served group of users": "服务最差的用户组", " marks what ranking by popularity reaches for the client's users.": " 标出按流行度排序对该客户端用户所达到的值。",
  "HR@# of its # test user, # above all together": "HR@#，# 名测试用户，比总体高 #", "HR@# of its # test user, # below all together": "HR@#，# 名测试用户，比总体低 #",
  "HR@# of its # test users, # above all together": "HR@#，# 名测试用户，比总体高 #", "HR@# of its # test users, # below all together": "HR@#，# 名测试用户，比总体低 #",
  "HR@# of # test users of all shards, # above all together": "HR@#，全部分片的 # 名测试用户，比总体高 #", "HR@# of # test users of all shards, # below all together": "HR@#，全部分片的 # 名测试用户，比总体低 #",
  "Users by how much is known of them": "按已知信息多少划分的用户", "training items of a user": "用户的训练物品数", "test users": "测试用户",
  "Tastes": "口味", "What part of a client's training interactions has a tag, in percent; blue is more than in all shards together, pink is less.": "客户端的训练交互中带有某标签的百分比；蓝色高于全部分片合计，粉色低于。",
  // Rounds
  "Rounds": "轮次", "Round #": "第 # 轮", "round": "轮次", "Who joined and who waited, as ": "谁参与、谁等待：由 ", " decided before each epoch, and why.": " 在每个 epoch 之前决定，以及原因。",
  " decided on epoch #": " 决定 epoch #", " after the last epoch": " 在最后一个 epoch 之后", ": ": "：", "; it took ": "；用时 ", "joined": "参与", "waited": "等待", "finished": "结束", "no report in time": "未及时报告",
  "passes": "遍数", "rate ×": "学习率 ×", "why": "原因",
  // Time
  "Time": "时间", "Where it goes: the mean over the clients, who work side by side.": "花在哪里：并行工作的各客户端的平均。", "The whole run": "整个运行", "Each epoch, in seconds": "每个 epoch，秒", "start": "启动",
  "exchange": "交换", "waiting for others": "等待其他客户端", "evaluation": "评估", "saving": "保存", "the rest": "其余",
  // Beyond plain training
  "Beyond plain training": "普通训练之外", "Privacy spent": "已用隐私预算", " at δ = #": "，δ = #", "No guarantee without noise.": "没有噪声就没有保证。", "exchanges paid for": "计入的交换次数", "noise multiplier": "噪声倍数",
  "clipped to": "裁剪到", "a user's chance": "用户被抽中的概率", "Distillation": "蒸馏", "strategy": "策略", "public interactions a round": "每轮公开交互", "temperature": "温度", "weight of the loss": "损失权重",
  "students that differ": "不同的学生网络", "options": "选项", "reports in all": "报告合计", "answers in all": "应答合计", "Compression": "压缩", "arrays of reports travel as": "报告中数组的传输格式", "model": "模型", "how": "方式", "size": "大小",
  "What stays with the clients": "留在客户端的内容", "Parameters that are never sent, by name:": "从不发送的参数，按名称：", " (all of them) ": "（全部）",
  // Notes and configuration
  "Notes": "说明", "What happened, or is worth knowing, beside the figures.": "指标之外发生的或值得知道的事。", "Configuration": "配置", "What differs from the defaults.": "与默认值不同之处。", "All # keys": "全部 # 个键",
  "find a key": "查找键", "key": "键", "value": "值", "default": "默认值", "meaning": "含义", "Its configuration is another version's, and can't be read.": "它的配置属于另一个版本，无法读取。",
  "command": "命令", "started": "开始", "ended": "结束", "versions": "版本", "data": "数据", "data's checksum": "数据校验和",
  // Several runs
  "# runs beside each other": "并列的 # 个运行", "Fewer than two of them have been evaluated.": "其中评估过的不足两个。", "The first two have the same HR": "前两个的 HR 相同", " has the highest HR": " 的 HR 最高", "@#, ": "@#，", ", # above ": "，比后者高 #：",
  " They were not trained on the same data, so figures can't be set against each other.": "它们的训练数据不同，因此指标不可相互比较。", "Figures": "指标", "run": "运行",
  "Of the epoch that each keeps; below them by how much they differ from A's.": "各自保留的 epoch 的指标；下面是与 A 的差。", "above popularity": "高于流行度", "All clients of each run together.": "每个运行的全部客户端合计。",
  "In what they differ; the other # keys are alike.": "不同之处；其余 # 个键相同。", "Their configurations are alike.": "它们的配置相同。", "HR@# of each client's test users; the best of a line is bold.": "每个客户端测试用户的 HR@#；每行最好的为粗体。",
  "Where it went: the mean over the clients of each run.": "花在哪里：每个运行各客户端的平均。",
};
