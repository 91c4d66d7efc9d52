// All records of the topics that begin with PREFIX, as lines of FILE, once the topic MARKER has a record and nothing has come
// for a while: java -cp "KAFKA/libs/*" Dump.java BOOTSTRAP PREFIX MARKER FILE
// A line is {"topic","headers":[[name,text]…],"key":…,"value":…}; key and value as they were written, null where there is none.
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Dump {
    static final ObjectMapper JSON = new ObjectMapper();
    static final long LIMIT_MS = 60_000, QUIET_MS = 1_500;

    public static void main(String[] args) throws Exception {
        String prefix = args[1], marker = args[2];
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "enable.auto.commit", false,
                "auto.offset.reset", "earliest", "fetch.max.wait.ms", 100);
        var lines = new TreeMap<String, List<String>>();
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            long begun = System.currentTimeMillis(), last = begun;
            var next = new TreeMap<String, Long>();
            boolean marked = false;
            while (true) {
                long now = System.currentTimeMillis();
                if (marked && now - last > QUIET_MS) break;
                if (now - begun > LIMIT_MS) throw new IllegalStateException("no record of " + marker + " came");
                var parts = new ArrayList<TopicPartition>();
                for (var topic : consumer.listTopics().entrySet())
                    if (topic.getKey().startsWith(prefix))
                        for (var part : topic.getValue()) parts.add(new TopicPartition(topic.getKey(), part.partition()));
                if (parts.isEmpty()) {
                    Thread.sleep(100);
                    continue;
                }
                consumer.assign(parts);
                for (var part : parts) consumer.seek(part, next.getOrDefault(part.toString(), 0L));
                var records = consumer.poll(Duration.ofMillis(500));
                for (var record : records) {
                    next.put(new TopicPartition(record.topic(), record.partition()).toString(), record.offset() + 1);
                    lines.computeIfAbsent(record.topic() + " " + record.partition(), t -> new ArrayList<>()).add(line(record));
                    marked |= record.topic().equals(marker);
                    last = System.currentTimeMillis();
                }
            }
        }
        var out = new StringBuilder();
        for (var topic : lines.values()) for (var line : topic) out.append(line).append('\n');
        Files.writeString(Path.of(args[3]), out);
    }

    static String line(ConsumerRecord<byte[], byte[]> record) throws Exception {
        var headers = new ArrayList<String>();
        for (var header : record.headers()) headers.add("[" + text(header.key()) + "," + text(string(header.value())) + "]");
        return "{\"topic\":" + text(record.topic()) + ",\"headers\":[" + String.join(",", headers) + "],\"key\":"
                + raw(record.key()) + ",\"value\":" + raw(record.value()) + "}";
    }

    static String string(byte[] bytes) {
        return bytes == null ? "" : new String(bytes, StandardCharsets.UTF_8);
    }

    static String text(String s) throws Exception {
        return JSON.writeValueAsString(s);
    }

    static String raw(byte[] bytes) {
        return bytes == null ? "null" : string(bytes);
    }
}
