// franz-go, unmodified: stockclient BOOTSTRAP SUFFIX. A failed expectation ends the program with 1.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	bootstrap, suffix string
	ctx               context.Context
)

func main() {
	bootstrap, suffix = os.Args[1], os.Args[2]
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, scenario := range []struct {
		name string
		run  func()
	}{{"admin", admin}, {"codecs", codecs}, {"group", group}} {
		scenario.run()
		fmt.Printf("{\"passed\": %q}\n", scenario.name)
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap)}, options...)...)
	must(err)
	return made
}

func create(topic string, partitions int32) {
	cl := client()
	defer cl.Close()
	answer, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic)
	must(err)
	must(answer.Err)
}

func admin() {
	cl := client()
	defer cl.Close()
	adm := kadm.NewClient(cl)
	topic := "go-admin-" + suffix
	create(topic, 2)
	value := "60000"
	altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic)
	must(err)
	must(altered[0].Err)
	eventually("the config changed", func() bool {
		configs, err := adm.DescribeTopicConfigs(ctx, topic)
		must(err)
		for _, config := range configs[0].Configs {
			if config.Key == "retention.ms" && *config.Value == value {
				return true
			}
		}
		return false
	})
	_, err = adm.UpdatePartitions(ctx, 3, topic)
	must(err)
	eventually("three partitions", func() bool {
		topics, err := adm.ListTopics(ctx, topic)
		must(err)
		return len(topics[topic].Partitions) == 3
	})
	offsets, err := adm.ListEndOffsets(ctx, topic)
	must(err)
	offset, _ := offsets.Lookup(topic, 2)
	expect("end offset", offset.Offset, int64(0))
	deleted, err := adm.DeleteTopic(ctx, topic)
	must(err)
	must(deleted.Err)
}

func codecs() {
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		topic := "go-" + name + "-" + suffix
		create(topic, 1)
		producer := client(kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(10*time.Millisecond))
		records := make([]*kgo.Record, 400)
		for i := range records {
			records[i] = &kgo.Record{Topic: topic, Value: []byte("again and again the same words " + strconv.Itoa(i)),
				Headers: []kgo.RecordHeader{{Key: "null", Value: nil}}}
		}
		must(producer.ProduceSync(ctx, records...).FirstErr())
		producer.Close()
		consumer := client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		next := 0
		for next < len(records) {
			fetches := consumer.PollFetches(ctx)
			must(fetches.Err())
			fetches.EachRecord(func(record *kgo.Record) {
				expect(name+" offset", record.Offset, int64(next))
				expect(name+" value", string(record.Value), "again and again the same words "+strconv.Itoa(next))
				expect(name+" header", record.Headers[0].Value == nil, true)
				next++
			})
		}
		consumer.Close()
	}
}

// Two cooperative members share, one leaves, the other takes over; what was committed is.
func group() {
	topic, id := "go-group-"+suffix, "go-group-"+suffix
	create(topic, 4)
	member := func() *kgo.Client {
		return client(kgo.ConsumerGroup(id), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))
	}
	seen := map[string]bool{}
	poll := func(cl *kgo.Client) {
		limited, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		cl.PollFetches(limited).EachRecord(func(record *kgo.Record) { seen[string(record.Value)] = true })
	}
	send := func(from, to int) {
		producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer producer.Close()
		for i := from; i < to; i++ {
			record := &kgo.Record{Topic: topic, Partition: int32(i % 4), Value: []byte(strconv.Itoa(i))}
			must(producer.ProduceSync(ctx, record).FirstErr())
		}
	}
	watcher := client()
	defer watcher.Close()
	shares := func() []int {
		described, err := kadm.NewClient(watcher).DescribeGroups(ctx, id)
		must(err)
		sizes := []int{}
		if described[id].State != "Stable" {
			return sizes
		}
		for _, one := range described[id].Members {
			if assigned, ok := one.Assigned.AsConsumer(); ok {
				for _, topic := range assigned.Topics {
					sizes = append(sizes, len(topic.Partitions))
				}
			}
		}
		return sizes
	}
	one, two := member(), member()
	send(0, 40)
	eventually("two members share", func() bool {
		poll(one)
		poll(two)
		sizes := shares()
		return len(sizes) == 2 && sizes[0] == 2 && sizes[1] == 2
	})
	eventually("40 records", func() bool { poll(one); poll(two); return len(seen) == 40 })
	must(two.CommitUncommittedOffsets(ctx))
	two.Close()
	send(40, 80)
	eventually("80 records", func() bool { poll(one); return len(seen) == 80 })
	must(one.CommitUncommittedOffsets(ctx))
	one.Close()
	offsets, err := kadm.NewClient(watcher).FetchOffsets(ctx, id)
	must(err)
	for part := int32(0); part < 4; part++ {
		committed, _ := offsets.Lookup(topic, part)
		expect("committed", committed.At, int64(20))
	}
}

func eventually(what string, condition func() bool) {
	for !condition() {
		if ctx.Err() != nil {
			panic("not in time: " + what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func expect[T comparable](what string, found, wanted T) {
	if found != wanted {
		panic(fmt.Sprintf("%s: %v instead of %v", what, found, wanted))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
