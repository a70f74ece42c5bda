import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.utils.Utils;

/** Prints keys with the Java client's own hash of them: `hash toPositive(hash) key`. Made murmur2.txt. */
public class Murmur2Vectors {
    public static void main(String[] arguments) {
        String[] keys = {
            "a", "ab", "abc", "abcd", "abcde", "21", "foobar", "kafka",
            "ZG6NWV/sample_stream", "ZG6NWV/stream-1", "unknown/stream-1", "unknown/",
            "ZG6NWV/straße", "ZG6NWV/配信", "ZG6NWV/🎥", "é", "ÿþý", "\u007f\u0080",
            "x".repeat(255), "ü".repeat(300), "ZG6NWV/" + "0123456789".repeat(400),
        };
        for (String key : keys) {
            int hash = Utils.murmur2(key.getBytes(StandardCharsets.UTF_8));
            System.out.println(hash + " " + Utils.toPositive(hash) + " " + key);
        }
    }
}
